"""Networks by name."""

from tinyseg.models.unet import UNet, build

__all__ = ["UNet", "build"]
