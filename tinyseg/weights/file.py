"""Reading a file of weights, of any of the formats, by what it begins with."""

from dataclasses import dataclass
from pathlib import Path

from tinyseg.common.arrays import Array
from tinyseg.common.findings import printable
from tinyseg.errors import RunError, WeightsError
from tinyseg.runs import checkpoint
from tinyseg.weights.pytorch import LEGACY, ZIP, read_legacy, read_zip

SAFETENSORS = "safetensors"
LONGEST_NAME = 500


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, by their names there."""

    path: Path
    format: str
    tensors: dict[str, Array]
    unread: tuple[str, ...]
    """What else the file holds: keys next to the weights, classes of objects."""


def read_weights(path: str | Path) -> Weights:
    """Read safetensors, or a file of `torch.save`, of which nothing is run.

    bfloat16 becomes float32; tensors that share numbers are views of one array. WeightsError where
    the file is missing, damaged or holds something else.
    """
    path = Path(path)
    content = _content(path)
    try:
        if content[:4] == b"PK\x03\x04":
            return _checked(Weights(path, ZIP, *read_zip(content)))
        if content[:1] == b"\x80":
            return _checked(Weights(path, LEGACY, *read_legacy(content)))
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{path}: {printable(str(error))}") from None
    if content[8:9] != b"{":
        raise WeightsError(
            f"{path}: neither safetensors nor a file of torch.save; give one of these"
        )
    try:
        tensors, facts = checkpoint.load(path)
    except RunError as error:
        raise WeightsError(str(error)) from None
    return _checked(Weights(path, SAFETENSORS, tensors, tuple(facts)))


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give a file of weights")
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def _checked(weights: Weights) -> Weights:
    """Refuse names of tensors that a table cannot show."""
    for name in weights.tensors:
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise WeightsError(f"{weights.path}: {name[:40]!a} cannot be a name of a tensor")
    return weights
