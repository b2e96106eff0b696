"""Outlines and run lengths to pixels, equal to pycocotools (Lin et al., COCO API, maskApi.c).

A pixel belongs to a polygon when its center lies inside by the even-odd rule, with corners rounded
to a fifth of a pixel. Polygons that share an edge therefore neither overlap nor leave a gap.
Coordinates count pixel edges: the first pixel of a row reaches from 0 to 1.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

STEPS = 5
"""Steps of a pixel to which corners are rounded."""
MOST_STEPS = 1 << 25
"""Longest outline of one polygon, in steps; an outline that fills a large image has fewer."""
_CHUNK = 1 << 20


class Region(NamedTuple):
    """A mask (h, w) of bools whose upper left pixel lies at (row, column) of the image."""

    row: int
    column: int
    mask: np.ndarray

    def paint(self, label_hw: np.ndarray, class_id: int) -> None:
        """Give the pixels of the region a class id."""
        rows, columns = self.mask.shape
        part = label_hw[self.row : self.row + rows, self.column : self.column + columns]
        part[self.mask] = class_id


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> Region:
    """Return the pixels inside an odd number of outlines, each (N, 2) of x, y, in one region.

    One outline inside another is a hole. ValueError when an outline is too long to be one.
    """
    rows, columns = size
    crossings = np.concatenate([_crossings(points, size) for points in polygons])
    if not len(crossings):
        return Region(0, 0, np.zeros((0, 0), bool))
    column, row = crossings[:, 0], crossings[:, 1]
    left, right, top, bottom = column.min(), column.max() + 1, row.min(), row.max()
    toggles = np.zeros((bottom - top + 1, right - left), np.int32)
    np.add.at(toggles, (row - top, column - left), 1)
    inside = np.cumsum(toggles, axis=0)[:-1] % 2 == 1
    return Region(int(top), int(left), inside[: rows - top, : columns - left])


def _crossings(points_xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (column, row) where an outline crosses the centers of columns: first row below."""
    corners = np.trunc(points_xy * STEPS + 0.5).astype(np.int64)
    ends = np.roll(corners, -1, axis=0)
    lengths = np.abs(corners - ends).max(axis=1) + 1
    if int(lengths.sum()) > MOST_STEPS:
        raise ValueError(f"an outline of {int(lengths.sum()) // STEPS} pixels is too long")
    chunk = np.cumsum(lengths) // _CHUNK
    bounds = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(corners)]
    parts = [_walk(corners[a:b], ends[a:b], lengths[a:b], size) for a, b in pairwise(bounds)]
    return np.concatenate(parts)


def _walk(
    starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Walk edges step by step along their longer axis, as pycocotools does."""
    rows, columns = size
    edge = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    dx, dy = np.abs(ends - starts).T
    flat = dx >= dy
    flip = np.where(flat, starts[:, 0] > ends[:, 0], starts[:, 1] > ends[:, 1])
    low = np.where(flip[:, None], ends, starts)
    high = np.where(flip[:, None], starts, ends)
    rise = np.where(flat, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0])
    slope = (rise / np.maximum(np.where(flat, dx, dy), 1))[edge]
    along = np.where(flip[edge], lengths[edge] - 1 - step, step)
    far = flat[edge]
    x = np.where(far, along + low[edge, 0], np.trunc(low[edge, 0] + slope * along + 0.5))
    y = np.where(far, np.trunc(low[edge, 1] + slope * along + 0.5), along + low[edge, 1])
    moved = np.flatnonzero((x[1:] != x[:-1]) & (edge[1:] == edge[:-1]))
    column = (np.minimum(x[moved], x[moved + 1]) + 0.5) / STEPS - 0.5
    row = (np.minimum(y[moved], y[moved + 1]) + 0.5) / STEPS - 0.5
    kept = (np.floor(column) == column) & (column >= 0) & (column <= columns - 1)
    below = np.ceil(np.clip(row[kept], 0, rows))
    return np.stack([column[kept], below], axis=1).astype(np.int64)


def decode_runs(counts: str | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) of COCO run lengths, which go down the columns, first outside.

    `counts` is a list of numbers or their compressed text. ValueError when they do not make up
    the size.
    """
    rows, columns = size
    runs = _uncompress(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    # a run beyond the image would overflow the sum
    if runs.ndim != 1 or (runs < 0).any() or (runs > rows * columns).any():
        raise ValueError("a run length is negative or longer than the image")
    if int(runs.sum()) != rows * columns:
        raise ValueError(f"the run lengths make {int(runs.sum())} pixels, not {rows} x {columns}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(columns, rows).T


def _uncompress(text: str) -> np.ndarray:
    """Read numbers of 5 bits a character, least first, each less the number two before it."""
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("the compressed run lengths are damaged")
    last = codes & 32 == 0
    begins = np.flatnonzero(np.r_[True, last[:-1]])
    lengths = np.diff(np.r_[begins, len(codes)])
    if lengths.max() > 8:
        raise ValueError("the compressed run lengths are damaged")
    place = np.arange(len(codes)) - np.repeat(begins, lengths)
    runs = np.add.reduceat((codes & 31) << 5 * place, begins)
    negative = codes[last] & 16 != 0
    runs[negative] -= 1 << 5 * lengths[negative]
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
