"""Networks by name."""

from tinyseg.models.unet import UNet, build, head_channels

__all__ = ["UNet", "build", "head_channels"]
