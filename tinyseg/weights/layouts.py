"""How other programs name the tensors of their networks, and our names for these.

Our networks with an encoder have the names of segmentation-models-pytorch (SMP), and their encoders
those of torchvision and timm. A layout is a table of patterns of names; the first that fits a whole
name gives ours, and a tensor that none fits is not used.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Prefixes that DataParallel, torch.compile and Lightning put before every name."""
TRAINING = ("optimizer.", "loss.", "augment.", "random.", "loss_scale.")
"""Beginnings of the other names in a checkpoint of tinyseg."""


@dataclass(frozen=True)
class Layout:
    """The names that a program gives to the tensors of its networks."""

    name: str
    telltales: tuple[str, ...]
    """Names that this layout has, and those above it in LAYOUTS have not."""
    rules: tuple[tuple[str, str], ...]
    """A pattern of their names and the name here, in which \\1 is the pattern's first group."""
    encoder_only: bool = False
    """Whether it is a network for classification: decoder and head keep their initial weights."""


def _milesial() -> tuple[tuple[str, str], ...]:
    layers = {0: "conv1", 1: "norm1", 3: "conv2", 4: "norm2"}
    rules = [("outc\\.conv\\.(.+)", r"head.\1")]
    for number, layer in layers.items():
        rules.append((rf"inc\.double_conv\.{number}\.(.+)", rf"down.0.{layer}.\1"))
        rules.append(
            (rf"down(\d)\.maxpool_conv\.1\.double_conv\.{number}\.(.+)", rf"down.\1.{layer}.\2")
        )
    for up in range(4):
        rules.append((rf"up{up + 1}\.up\.(.+)", rf"up.{up}.up.\1"))
        for number, layer in layers.items():
            pattern = rf"up{up + 1}\.conv\.double_conv\.{number}\.(.+)"
            rules.append((pattern, rf"up.{up}.conv.{layer}.\1"))
    return tuple(rules)


LAYOUTS = (
    Layout("tinyseg", ("down.0.conv1.weight", "head.weight"), (("(.+)", r"\1"),)),
    Layout("milesial/Pytorch-UNet", ("inc.double_conv.0.weight", "outc.conv.weight"), _milesial()),
    Layout("nnU-Net", ("encoder.stages.0.0.convs.0.conv.weight",), ()),
    Layout("nnU-Net with residual encoder", ("encoder.stages.0.blocks.0.conv1.conv.weight",), ()),
    Layout(
        "segmentation-models-pytorch",
        ("segmentation_head.0.weight",),
        ((r"((?:encoder|decoder|segmentation_head)\..+)", r"\1"),),
    ),
    Layout("EfficientNet-PyTorch", ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"), ()),
    Layout("timm EfficientNet", ("conv_stem.weight", "blocks.0.0.conv_dw.weight"), ()),
    Layout(
        "torchvision or timm ResNet",
        ("conv1.weight", "layer1.0.conv1.weight"),
        ((r"((?:conv1|bn1|layer[1-4])\..+)", r"encoder.\1"),),
        encoder_only=True,
    ),
)
SAME_NAMES = Layout("the network's own names", (), (("(.+)", r"\1"),))


def prefix_of(names: Collection[str]) -> str:
    """Return what wrappers of the network put before every name."""
    if any(name.startswith("model.") for name in names):
        names = [name for name in names if not name.startswith(TRAINING)]
    prefix = ""
    while names:
        wrapper = next((w for w in WRAPPERS if all(n.startswith(prefix + w) for n in names)), "")
        if not wrapper:
            break
        prefix += wrapper
    return prefix


def layout_of(names: Collection[str]) -> Layout | None:
    """Return the layout of these names; None for one that is not known."""
    prefix = prefix_of(names)
    known = {name.removeprefix(prefix) for name in names}
    return next((layout for layout in LAYOUTS if known.issuperset(layout.telltales)), None)


def our_names(names: Collection[str], layout: Layout) -> dict[str, str]:
    """Return their names by ours, without those that have none here."""
    prefix, ours = prefix_of(names), {}
    for name in names:
        if name.startswith(prefix):
            for pattern, template in layout.rules:
                if match := re.fullmatch(pattern, name.removeprefix(prefix)):
                    ours[match.expand(template)] = name
                    break
    return ours
