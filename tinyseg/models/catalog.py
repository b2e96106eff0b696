"""What there is to choose from: every network and encoder with its size, work and source."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.config import ModelConfig
from tinyseg.errors import ConfigError
from tinyseg.models.build import build
from tinyseg.models.encoders import ENCODERS
from tinyseg.nn import parameters, state_dict

NETWORKS = {
    "unet": "U-Net, Ronneberger et al. 2015, arXiv:1505.04597",
    "unet++": "U-Net++, Zhou et al. 2018, arXiv:1807.10165",
    "fpn": "feature pyramid, Kirillov et al. 2019, arXiv:1901.02446",
    "deeplabv3+": "DeepLabV3+, Chen et al. 2018, arXiv:1802.02611",
    "transunet": "TransUNet, Chen et al. 2021, arXiv:2102.04306",
    "resunet": "nnU-Net's residual encoder, Isensee et al. 2024, arXiv:2404.09556",
}
SOURCES = {
    "resnet": "ResNet, He et al. 2016, arXiv:1512.03385",
    "mobilenet": "MobileNetV2, Sandler et al. 2018, arXiv:1801.04381",
    "efficientnet-b": "EfficientNet, Tan & Le 2019, arXiv:1905.11946",
    "efficientnet-lite": "EfficientNet-Lite, 2020, the paper's without SE and SiLU",
}
"""Of encoders, by the beginning of their names."""


@dataclass(frozen=True)
class Entry:
    """A network or an encoder: how large it is, and what it computes."""

    name: str
    parameters: int
    operations: int
    """Floating-point operations for one image, a multiply-add counted as two."""
    source: str


@dataclass(frozen=True)
class Catalog:
    """All networks and encoders at one image size."""

    size: int
    channels: int
    networks: list[Entry]
    encoders: list[Entry]

    def table(self) -> str:
        """Return both lists as text."""
        title = f"for one image of {self.channels}x{self.size}x{self.size} and two classes"
        lines = [f"{'model.name':20}{'parameters':>13}{'GFLOP':>9}   {title}"]
        lines += [_line(entry) for entry in self.networks]
        lines += ["", f"{'model.encoder':20}{'parameters':>13}{'GFLOP':>9}   of the encoder alone"]
        lines += [_line(entry) for entry in self.encoders]
        note = "Every encoder goes with every network but resunet. Choose with --set model.name=fpn"
        return "\n".join([*lines, "", f"{note} model.encoder=resnet18"])

    def to_dict(self) -> dict[str, object]:
        """Return all numbers."""
        return asdict(self)


def _line(entry: Entry) -> str:
    work = entry.operations / 1e9
    return f"{entry.name:20}{entry.parameters:>13,}{work:>9.2f}   {entry.source}"


def catalog(size: int = 256, channels: int = 3, names: Sequence[str] = ()) -> Catalog:
    """Return what there is, or only `names`, with the settings' defaults; nothing is computed.

    ConfigError for a name that there is not.
    """
    known = [*NETWORKS, *ENCODERS]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no network or encoder is called {unknown[0]!r}: {', '.join(known)}")
    configs = [ModelConfig(name=name) for name in NETWORKS] + [ModelConfig(encoder="resnet34")]
    networks = [
        entry(_label(one), build(one, channels, 2, seed=None), size, channels, NETWORKS[one.name])
        for one in configs
        if not names or one.name in names
    ]
    encoders = [
        entry(name, make(None, channels, 32, 0.0), size, channels, _source(name))
        for name, make in ENCODERS.items()
        if not names or name in names
    ]
    return Catalog(size, channels, networks, encoders)


def _label(config: ModelConfig) -> str:
    return config.name if "encoder" not in config.used else f"{config.name}:resnet34"


def _source(encoder: str) -> str:
    return next(text for start, text in SOURCES.items() if encoder.startswith(start))


def entry(name: str, model: object, size: int, channels: int, source: str) -> Entry:
    """Return a network's parameters, and its operations for an image, without computing it."""
    trained = parameters(state_dict(model)).values()
    with kernels.operations() as operations:
        model(Tensor.empty(1, channels, size, size), training=False)  # type: ignore[operator]
    return Entry(name, sum(int(t.numel()) for t in trained), sum(operations), source)
