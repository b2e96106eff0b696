"""How other programs name the tensors of their networks, and our names for these.

Our networks with an encoder have the names of segmentation-models-pytorch (SMP), and their encoders
those of torchvision and timm. A layout is a table of patterns of names; the first that fits a whole
name gives ours, and a tensor that none fits is not used.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

Rules = tuple[tuple[str, str], ...]
"""Patterns of whole names there, and the names here, which refer to the patterns' groups."""

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
    rules: Rules | Callable[[Collection[str]], Rules]
    """They may depend on the names in the file."""
    encoder_only: bool = False
    """Whether it is a network for classification: decoder and head keep their initial weights."""


def _milesial() -> Rules:
    layers = {0: "conv1", 1: "norm1", 3: "conv2", 4: "norm2"}
    rules = [("outc\\.conv\\.(.+)", r"head.\1")]
    for number, layer in layers.items():
        rules.append((rf"inc\.double_conv\.{number}\.(.+)", rf"down.0.{layer}.\1"))
        rules.append(
            (rf"down(\d)\.maxpool_conv\.1\.double_conv\.{number}\.(.+)", rf"down.\1.{layer}.\2")
        )
    for up in range(6):
        rules.append((rf"up{up + 1}\.up\.(.+)", rf"up.{up}.up.\1"))
        for number, layer in layers.items():
            pattern = rf"up{up + 1}\.conv\.double_conv\.{number}\.(.+)"
            rules.append((pattern, rf"up.{up}.conv.{layer}.\1"))
    return tuple(rules)


_LUKEMELAS: Rules = (
    # an underscore before every name
    (r"(encoder\.)?_blocks\.(\d+)\._(.+)", r"encoder.blocks.\2.\3"),
    (r"(encoder\.)?_(conv_stem|bn0)\.(.+)", r"encoder.\2.\3"),
)
_TIMM_PARTS = {
    **{"conv_pw": "expand_conv", "bn1": "bn0", "conv_dw": "depthwise_conv", "bn2": "bn1"},
    **{"conv_pwl": "project_conv", "bn3": "bn2"},
    **{r"se\.conv_reduce": "se_reduce", r"se\.conv_expand": "se_expand"},
}
_TIMM_FIRST_PARTS = {
    **_TIMM_PARTS,  # the blocks of the first stage expand nothing
    **{"conv_pw": "project_conv", "bn1": "bn1", "bn2": "bn2"},
}


def _timm_efficientnet(names: Collection[str]) -> Rules:
    """Number the blocks through, which timm numbers anew in each stage."""
    before = r"(?:encoder\.)?(?:model\.)?"
    blocks = {re.match(before + r"blocks\.(\d+)\.(\d+)\.", name) for name in names}
    places = sorted({(int(found[1]), int(found[2])) for found in blocks if found})
    rules = [
        (before + r"conv_stem\.(.+)", r"encoder.conv_stem.\1"),
        (before + r"bn1\.(.+)", r"encoder.bn0.\1"),
    ]
    for number, (stage, place) in enumerate(places):
        for theirs, ours in (_TIMM_PARTS if stage else _TIMM_FIRST_PARTS).items():
            pattern = rf"{before}blocks\.{stage}\.{place}\.{theirs}\.(.+)"
            rules.append((pattern, rf"encoder.blocks.{number}.{ours}.\1"))
    return tuple(rules)


_SMP: Rules = ((r"((?:encoder|decoder|segmentation_head)\..+)", r"\1"),)


def _smp(names: Collection[str]) -> Rules:
    timm = any(name.endswith("blocks.0.0.conv_dw.weight") for name in names)
    return (*(_timm_efficientnet(names) if timm else _LUKEMELAS), *_SMP)


LAYOUTS = (
    Layout("tinyseg", ("down.0.conv1.weight", "head.weight"), (("(.+)", r"\1"),)),
    Layout("milesial/Pytorch-UNet", ("inc.double_conv.0.weight", "outc.conv.weight"), _milesial()),
    Layout("nnU-Net", ("encoder.stages.0.0.convs.0.conv.weight",), ()),
    Layout(
        "nnU-Net with residual encoder",
        ("encoder.stages.0.blocks.0.conv1.conv.weight",),
        ((r"(encoder\..+|decoder\.(?!encoder\.).+)", r"\1"),),
    ),
    Layout(
        "segmentation-models-pytorch",
        ("segmentation_head.0.weight",),
        _smp,
    ),
    Layout(
        "EfficientNet-PyTorch",
        ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"),
        _LUKEMELAS,
        encoder_only=True,
    ),
    Layout(
        "timm EfficientNet",
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight"),
        _timm_efficientnet,
        encoder_only=True,
    ),
    Layout(
        "torchvision MobileNetV2",
        ("features.0.0.weight", "features.1.conv.0.0.weight"),
        ((r"(features\..+)", r"encoder.\1"),),
        encoder_only=True,
    ),
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
    prefix = prefix_of(names)
    stripped = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
    rules = layout.rules if isinstance(layout.rules, tuple) else layout.rules(stripped)
    ours: dict[str, str] = {}
    for name, whole in stripped.items():
        matches = ((re.fullmatch(pattern, name), template) for pattern, template in rules)
        fitting = next(((m, template) for m, template in matches if m), None)
        if fitting:
            ours[fitting[0].expand(fitting[1])] = whole
    return ours
