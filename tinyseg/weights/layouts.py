"""Which program named the tensors of a file."""

from collections.abc import Iterable
from dataclasses import dataclass

WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Prefixes that DataParallel, torch.compile and Lightning put before every name."""


@dataclass(frozen=True)
class Layout:
    """The names that a program gives to the tensors of its networks."""

    name: str
    telltales: tuple[str, ...]
    """Names that this layout has, and those above it in LAYOUTS have not."""


LAYOUTS = (
    Layout("tinyseg", ("down.0.conv1.weight", "head.weight")),
    Layout("milesial/Pytorch-UNet", ("inc.double_conv.0.weight", "outc.conv.weight")),
    Layout("nnU-Net", ("encoder.stages.0.0.convs.0.conv.weight",)),
    Layout("nnU-Net with residual encoder", ("encoder.stages.0.blocks.0.conv1.conv.weight",)),
    Layout("segmentation-models-pytorch", ("segmentation_head.0.weight",)),
    Layout("EfficientNet-PyTorch", ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight")),
    Layout("timm EfficientNet", ("conv_stem.weight", "blocks.0.0.conv_dw.weight")),
    Layout("torchvision or timm ResNet", ("conv1.weight", "layer1.0.conv1.weight")),
)


def prefix_of(names: Iterable[str]) -> str:
    """Return what wrappers of the network put before every name."""
    prefix, names = "", list(names)
    while names:
        wrapper = next((w for w in WRAPPERS if all(n.startswith(prefix + w) for n in names)), "")
        if not wrapper:
            break
        prefix += wrapper
    return prefix


def layout_of(names: Iterable[str]) -> Layout | None:
    """Return the layout of these names, without what wrappers put before them."""
    known = set(names)
    return next((layout for layout in LAYOUTS if known.issuperset(layout.telltales)), None)
