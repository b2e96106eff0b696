"""Networks by name, and the one that the settings of a run describe.

A network is a class made of `nn`'s layers: images (B, C, H, W) in, logits (B, K, H, W) out. It
knows neither losses, nor data, nor runs. A new one is a file here and an entry in DECODERS, or, if
it has no encoder to choose, in `build`; and its source in `catalog`.
"""

from tinyseg.models.build import DECODERS, Network, build, head_channels
from tinyseg.models.catalog import Catalog, catalog
from tinyseg.models.encoder_decoder import EncoderDecoder
from tinyseg.models.encoders import ENCODERS
from tinyseg.models.resunet import ResUNet
from tinyseg.models.unet import UNet

__all__ = [
    "DECODERS",
    "ENCODERS",
    "Catalog",
    "EncoderDecoder",
    "Network",
    "ResUNet",
    "UNet",
    "build",
    "catalog",
    "head_channels",
]
