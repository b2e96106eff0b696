"""Elastic deformation, and crops that look for foreground."""

from dataclasses import dataclass

from tinygrad import Tensor, dtypes

from tinyseg.augment.sampling import Draw
from tinyseg.config import IGNORE


@dataclass(frozen=True)
class Elastic:
    """Displacements (2 B n n) of the nodes of a coarse grid, in fractions of the image."""

    nodes: Tensor
    side: int
    draw: Draw

    def __call__(self, batch: int, rows: int, columns: int) -> Tensor:
        """Return the displacement of every pixel (B, 2, rows, columns), in pixels."""
        nodes = self.nodes.reshape(batch, 2, self.side, self.side)
        is_row = (Tensor.arange(2) == 0).reshape(1, 2, 1, 1)
        nodes = self.draw.gate(nodes, 0.0) * is_row.where(float(rows), float(columns))
        down, right = (_cubic(self.side, size).contiguous() for size in (rows, columns))
        lines = (down.reshape(1, 1, rows, self.side, 1) * nodes.unsqueeze(2)).sum(3).contiguous()
        return (lines.unsqueeze(3) * right).sum(4).contiguous()


def elastic(draw: Draw, std: float = 0.02, grid: float = 3.0) -> Elastic:
    """Displace pixels smoothly at random (Ronneberger et al. 2015, section 3.1).

    A grid of `grid` x `grid` nodes spans the image, each displaced by normal numbers of std times
    the image's side, with bicubic interpolation between them. The paper's 10 pixels of 512 are
    0.02. One more ring of nodes lies around it, so that the image's edge is no special case.
    """
    side = int(grid) + 2
    return Elastic(draw.normal(2 * side * side) * std, side, draw)


def _cubic(nodes: int, size: int) -> Tensor:
    """Return weights (size, nodes) of bicubic interpolation: Keys 1981, equation 4, a = -1/2.

    The second node lies on the first pixel, the last but one on the last.
    """
    place = Tensor.arange(size) * ((nodes - 3) / (size - 1)) + 1
    away = (place.reshape(-1, 1) - Tensor.arange(nodes)).abs()
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return (away < 1).where(near, (away < 2).where(far, 0.0))


@dataclass(frozen=True)
class Crop:
    """A part of the input that fills the output."""

    draw: Draw
    side: Tensor
    """Share of the image's side; 1 is all of it."""
    place: tuple[Tensor, Tensor]
    """Where it lies if not on foreground: 0 is the top or left, 1 the bottom or right."""
    wants: Tensor
    """Whether foreground is in its middle, if there is some."""
    salts: tuple[Tensor, Tensor]

    def __call__(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the crop's middle from the image's middle, in pixels."""
        pixel = _foreground(label, *self.salts)
        wants = self.wants & (pixel > 0)
        columns, index = int(label.shape[2]), (pixel & 0xFFFFFF).cast(dtypes.int32)
        pixels = index // columns, index % columns
        middles = []
        for size, pixel, place in zip(label.shape[1:], pixels, self.place, strict=True):
            room = (1 - self.side) * (int(size) / 2)
            aimed = (pixel.cast(dtypes.float32) - (int(size) - 1) / 2).minimum(room).maximum(-room)
            middles.append(self.draw.gate(wants.where(aimed, (2 * place - 1) * room), 0.0))
        return middles[0], middles[1]


def crop(draw: Draw, low: float = 0.5, foreground: float = 0.33) -> Crop:
    """Zoom a part of at least `low` times the image's side, anywhere, to the full size.

    With the probability `foreground` it is centered (as far as the edge allows) on a pixel of a
    class that is drawn among the sample's foreground classes, each equally likely.
    """
    side = draw.between(low, 1.0, 1.0)
    place = draw.uniform(), draw.uniform()
    wants = draw.uniform() < foreground
    return Crop(draw, side, place, wants, (draw.uniform(), draw.uniform()))


def _foreground(label: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return a foreground pixel of each sample (B,) uint64: index in the low 24 bits; 0: none.

    The largest of random numbers: the upper 16 bits are of its class, the next 24 its own.
    """
    batch, pixels = int(label.shape[0]), int(label.shape[1] * label.shape[2])
    classes, index = label.reshape(batch, pixels).cast(dtypes.uint32), Tensor.arange(pixels)
    salts = [(u * 2**24).cast(dtypes.uint32).reshape(-1, 1) for u in (one, other)]
    of_class = (_mixed(classes ^ salts[0]) >> 16).cast(dtypes.uint64) << 48
    of_pixel = (_mixed(index.cast(dtypes.uint32) ^ salts[1]) >> 8).cast(dtypes.uint64) << 24
    score = of_class + of_pixel + index.cast(dtypes.uint64)
    is_foreground = (classes > 0) & (classes != IGNORE)
    return is_foreground.where(score, 0).max(axis=1).contiguous()


def _mixed(x: Tensor) -> Tensor:
    """Mix 32 bits by a bijection: lowbias32 (Wellons, "Hash function prospector")."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)
