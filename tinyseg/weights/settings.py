"""Which settings of a run describe the network that a file of weights belongs to."""

import re
from collections.abc import Iterable

from tinyseg.common.arrays import Array
from tinyseg.weights.layouts import layout_of, our_names

Named = dict[str, Array]

DECODERS = {
    "decoder.blocks.x_0_0.conv1.0.weight": "unet++",
    "decoder.p5.weight": "fpn",
    "decoder.aspp.0.convs.0.0.weight": "deeplabv3+",
    "decoder.blocks.0.conv1.0.weight": "unet",
}
"""A name that only this decoder has."""
RESNETS = {(2, False): "resnet18", (6, False): "resnet34", (6, True): "resnet50"}
"""By the blocks of the third stage, and whether these have three convolutions."""
EFFICIENTNETS = {
    **{(16, 320): 0, (23, 320): 1, (23, 352): 2, (26, 384): 3},
    **{(21, 320): 1, (21, 352): 2},  # Lite, whose first and last stages do not grow
}
"""By the number of blocks and the last one's channels."""


def settings_of(tensors: Named) -> str:
    """Return "model.name=unet model.depth=4 ..." and channels; "" where it is none of ours."""
    layout = layout_of(tensors)
    if layout is None:
        return ""
    ours = {name: tensors[theirs] for name, theirs in our_names(tensors, layout).items()}
    found = _plain(ours) if "down.0.conv1.weight" in ours else _with_encoder(ours)
    return " ".join(f"model.{name}={value}" for name, value in found.items())


def _plain(ours: Named) -> dict[str, object]:
    up = ours.get("up.0.up.weight")
    found: dict[str, object] = {
        "base_channels": len(ours["down.0.conv1.weight"]),
        "depth": _count(r"down\.(\d+)\.", ours) - 1,
    }
    if up is not None and up.shape[-1] == 1:
        found["upsample"] = "bilinear"  # or nearest, whose weights are the same
    if "down.0.norm1.running_mean" not in ours:
        found["norm"] = "group" if "down.0.norm1.weight" in ours else "none"
    if "up.0.attention.gate.weight" in ours:
        found["attention"] = "true"
    return found


def _with_encoder(ours: Named) -> dict[str, object]:
    if "encoder.stem.convs.0.conv.weight" in ours:
        depth = _count(r"encoder\.stages\.(\d+)\.", ours) - 1
        width = len(ours["encoder.stem.convs.0.conv.weight"])
        return {"name": "resunet", "base_channels": width, "depth": depth}
    name = next((decoder for tensor, decoder in DECODERS.items() if tensor in ours), "")
    encoder = _encoder(ours)
    return {**({"name": name} if name else {}), "encoder": encoder} if encoder else {}


def _encoder(ours: Named) -> str:
    if "encoder.features.0.0.weight" in ours:
        return "mobilenet_v2"
    if "encoder.layer1.0.conv1.weight" in ours:
        bottleneck = "encoder.layer1.0.conv3.weight" in ours
        return RESNETS.get((_count(r"encoder\.layer3\.(\d+)\.", ours), bottleneck), "")
    blocks = _count(r"encoder\.blocks\.(\d+)\.", ours)
    last = ours.get(f"encoder.blocks.{blocks - 1}.project_conv.weight")
    number = EFFICIENTNETS.get((blocks, 0 if last is None else len(last)))
    if number is None:
        return ""
    kind = "b" if "encoder.blocks.0.se_reduce.weight" in ours else "lite"
    return f"efficientnet-{kind}{number}"


def _count(pattern: str, names: Iterable[str]) -> int:
    """Return how many the pattern's numbers count, from 0."""
    matches = (re.match(pattern, name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
