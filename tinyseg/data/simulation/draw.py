"""Draw one simulated image and its exact label."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from tinyseg.data.simulation.fields import (
    Field,
    between,
    blur,
    grid,
    normal,
    smooth,
    to_bytes,
    warped,
)

Profile = Callable[[Field, float], Field]
_TINTS = ((176, 128, 150), (122, 146, 118), (164, 146, 104), (112, 128, 158))
_COLORS = ((205, 92, 70), (80, 170, 90), (75, 105, 200))


@dataclass(frozen=True)
class Canvas:
    """What a drawing function needs for one image."""

    rng: np.random.Generator
    size: int
    fraction: float
    """The share of foreground that this image should have; 0 for an empty one."""
    contrast: float
    noise: float

    @property
    def scale(self) -> float:
        """The size relative to 128 pixels."""
        return self.size / 128

    def empty_label(self) -> np.ndarray:
        """Return a label of background."""
        return np.zeros((self.size, self.size), np.uint8)


def cells(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Draw bright discs with a dark halo on a tinted, uneven background, among dirt and glow."""
    rng, size, label = canvas.rng, canvas.size, canvas.empty_label()
    light = _illumination(canvas)
    raised = np.zeros((size, size))
    for _ in range(3):
        radius = between(rng, 0.06, 0.16) * size
        _add_disc(raised, rng.random(2) * size, radius, between(rng, 25, 60), _glow)
    for _ in range(5):
        _add_disc(raised, rng.random(2) * size, between(rng, 1.2, 2.6) * canvas.scale, -55, _glow)
    for center, radius in _scatter(canvas, label):
        height = canvas.contrast * between(rng, 34, 60)
        _add_disc(raised, center, radius, height, _cell_profile)
    tint = _tint(rng)
    image = light[..., None] * tint + raised[..., None] * (0.8 + 0.2 * tint[::-1] / 128)
    image = blur(image, 1, 0, 1)
    grain = normal(rng, size, size, 1) * 3.5 + normal(rng, size, size, 3) * 3
    return to_bytes(image + canvas.noise * grain), label


def ultrasound(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Draw layered, speckled tissue with one dark, irregular lesion with a soft border."""
    depth_px, shadow = _lesion(canvas)
    border = max(1.0, between(canvas.rng, 1.5, 5) * canvas.scale)
    inside = np.clip(depth_px / border + 0.5, 0, 1)
    # The lesion is darker than its own surroundings, not darker than a fixed gray.
    darker = np.clip(canvas.contrast * between(canvas.rng, 0.45, 0.68), 0, 1)
    echo = _tissue(canvas, 1 - 0.8 * inside) * shadow * (1 - darker * inside)
    image = 255 * np.clip(echo * _speckle(canvas), 0, None) ** 0.75
    image += canvas.noise * 2 * normal(canvas.rng, canvas.size, canvas.size)
    return to_bytes(image)[..., None], (depth_px >= 0).astype(np.uint8)


def membranes(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Draw electron microscopy: gray cytoplasm, organelles, thin dark membranes (class 1)."""
    rng, size, label = canvas.rng, canvas.size, canvas.empty_label()
    image = 158 + 16 * smooth(rng, size, 3) + 9 * smooth(rng, size, size // 5)
    image += 30 * blur(normal(rng, size, size), 2, 0, 1)
    for _ in range(4):
        _add_organelle(canvas, image)
    if canvas.fraction > 0:
        wall = _wall_distance(canvas)
        half = np.sort(wall, axis=None)[round(canvas.fraction * size * size) - 1]
        label = (wall <= half).astype(np.uint8)
        dark = np.clip(1.6 - wall / max(half, 0.5), 0, 1) * (0.8 + 0.3 * smooth(rng, size, 7))
        image -= 82 * canvas.contrast * blur(dark, 1, 0, 1)
    image += canvas.noise * (11 * normal(rng, size, size) + 9 * blur(normal(rng, size, size), 1, 1))
    return to_bytes(image)[..., None], label


def shapes(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Draw discs (1), squares (2) and triangles (3) of varied color, later ones in front."""
    rng, size, label = canvas.rng, canvas.size, canvas.empty_label()
    image = _illumination(canvas)[..., None] * (_tint(rng) - 15)
    turn = int(rng.random() * 3)
    for count in range(400):
        missing = canvas.fraction * size * size - np.count_nonzero(label)
        radius = min(between(rng, 0.07, 0.17) * size, (missing / 3) ** 0.5 if missing > 0 else 0)
        if radius < max(1.5, 0.015 * size):
            break
        class_id = 1 + (turn + count) % 3
        inside = _polygon_depth(canvas, class_id, radius)
        label[inside >= 0] = class_id
        color = np.array(_COLORS[class_id - 1]) + 70 * (rng.random(3) - 0.5)
        cover = np.clip(inside + 0.5, 0, 1)[..., None]
        image += cover * min(canvas.contrast, 1.5) * (color - image)
    return to_bytes(image + canvas.noise * 6 * normal(rng, size, size, 3)), label


def _tint(rng: np.random.Generator) -> Field:
    first, second = (np.array(_TINTS[int(rng.random() * len(_TINTS))]) for _ in range(2))
    tint: Field = (first + (second - first) * rng.random()) * between(rng, 0.72, 1.08)
    return tint


def _illumination(canvas: Canvas) -> Field:
    row, col = grid(canvas.size)
    tilt = (canvas.rng.random(2) - 0.5) * 0.5
    slope: Field = tilt[0] * (row / canvas.size - 0.5) + tilt[1] * (col / canvas.size - 0.5)
    waves = 0.12 * smooth(canvas.rng, canvas.size, 2) + 0.04 * smooth(canvas.rng, canvas.size, 9)
    return 1 + slope + waves


def _glow(distance: Field, radius: float) -> Field:
    return np.clip(1 - (distance / radius) ** 2, 0, None) ** 2


def _cell_profile(distance: Field, radius: float) -> Field:
    """Return a disc with a brighter rim, sharp at the radius, and a dark halo two pixels wide."""
    cover = np.clip(radius - distance + 0.5, 0, 1)
    halo = np.clip(radius + 2.5 - distance, 0, 1) * (1 - cover)
    return cover * (0.75 + 0.3 * (distance / radius) ** 4) - 0.3 * halo


def _add_disc(field: Field, center: Field, radius: float, height: float, profile: Profile) -> None:
    region = _region(field.shape[0], center, radius + 3)
    field[region] += height * profile(_distance(region, center), radius)


def _region(size: int, center: Field, reach: float) -> tuple[slice, slice]:
    """Return the rows and columns of a box around a center, within the image."""
    low = np.clip(np.floor(center - reach).astype(int), 0, None)
    high = np.clip(np.ceil(center + reach).astype(int), 0, size)
    return slice(low[0], high[0]), slice(low[1], high[1])


def _distance(region: tuple[slice, slice], center: Field) -> Field:
    row, col = (np.arange(s.start, s.stop) + 0.5 - c for s, c in zip(region, center, strict=True))
    distance: Field = np.sqrt((row * row)[:, None] + col * col)
    return distance


def _scatter(canvas: Canvas, label: np.ndarray) -> list[tuple[Field, float]]:
    """Fill the wanted share of the label with discs, apart from one another while there is room."""
    rng, size, discs = canvas.rng, canvas.size, []
    smallest = max(1.8, 0.016 * size)
    while (missing := canvas.fraction * size * size - np.count_nonzero(label)) > smallest**2 * 1.5:
        radius = max(2.0, (0.02 + 0.045 * float(rng.random()) ** 1.5) * size)
        radius = min(radius, max(smallest, (missing / np.pi) ** 0.5))
        for _ in range(40):
            center = rng.random(2) * size
            region = _region(size, center, radius + 3)
            if not label[region][_distance(region, center) <= radius + 2].any():
                break
        label[region][_distance(region, center) <= radius] = 1
        discs.append((center, radius))
    return discs


def _tissue(canvas: Canvas, streaky: Field) -> Field:
    """Return the brightness 0..1 of bent layers with thin bright streaks (times `streaky`)."""
    rng, size = canvas.rng, canvas.size
    row, col = (axis / size for axis in grid(size))
    bent = row + 0.05 * smooth(rng, size, 2) + 0.015 * smooth(rng, size, 6)
    streaks = np.zeros((size, size))
    for rows, cols, weight in ((8, 2, 0.55), (15, 4, 0.45), (26, 7, 0.3)):
        ridge = np.clip(1 - 5 * abs(warped(rng, bent, col + 0 * bent, rows, cols)), 0, 1)
        streaks += weight * ridge * np.clip(0.6 + smooth(rng, size, 3), 0, 1)
    layer = warped(rng, bent, col + 0 * bent, 6, 1)
    echo = between(rng, 0.2, 0.36) + 0.12 * layer + 0.06 * smooth(rng, size, 5)
    echo += 0.6 * streaks * streaky + 0.35 * np.clip(1 - abs(bent - 0.04) / 0.025, 0, 1)
    fade = 1 - between(rng, 0.25, 0.75) * np.clip(row - 0.3, 0, None) ** 1.3
    columns = 1 - 0.5 * np.clip(smooth(rng, size, 1, 6) - 0.15, 0, 1) * np.clip(row * 3, 0, 1)
    patches = 1 - 0.45 * np.clip(2.5 * smooth(rng, size, 7, 4) - 1, 0, 1)
    return np.clip(echo, 0.05, None) * fade * columns * patches


def _lesion(canvas: Canvas) -> tuple[Field, Field]:
    """Return the depth in the lesion in pixels (negative outside) and the brightness below it."""
    rng, size = canvas.rng, canvas.size
    flat, waves = between(rng, 0.5, 0.85), 0.22 * rng.random(4) / np.array([1, 1.2, 1.6, 2])
    phases = 2 * np.pi * rng.random(4)
    # Area of a star shape: pi r0^2 flat (1 + sum of waves^2 / 2).
    radius = (canvas.fraction / (np.pi * flat * (1 + float((waves**2).sum()) / 2))) ** 0.5 * size
    room = np.clip(np.array([flat, 1]) * radius * 1.2 / size, 0, 0.45)
    center = (room + (np.array([0.85, 1]) - 2 * room).clip(0) * rng.random(2)) * size
    row, col = grid(size)
    row, col = (row - center[0]) / flat, col - center[1]
    distance, angle = np.sqrt(row * row + col * col), np.arctan2(row, col)
    terms = enumerate(zip(waves, phases, strict=True), start=2)
    reach = 1 + sum(wave * np.cos(k * angle + phase) for k, (wave, phase) in terms)
    across, along = abs(col) / max(radius, 1), row / max(radius, 1)
    below = np.clip(1.2 - across, 0, 1) * np.clip(along - 0.3, 0, 1)
    shadow = 1 + below * between(rng, -0.45, 0.35) * (canvas.fraction > 0)
    depth_px = (radius * reach - distance) * flat**0.5
    return depth_px if canvas.fraction > 0 else np.full_like(depth_px, -float(size)), shadow


def _speckle(canvas: Canvas) -> Field:
    """Return Rayleigh-distributed brightness of mean 1, wider along rows than along columns."""
    size = canvas.size
    real, imaginary = (blur(normal(canvas.rng, size, size), 2, 1) / 0.2734**0.5 for _ in range(2))
    rayleigh = np.sqrt(real * real + imaginary * imaginary) / 1.2533
    speckle: Field = np.clip(1 + 0.5 * canvas.noise * (rayleigh - 1), 0, None)
    return speckle


def _add_organelle(canvas: Canvas, image: Field) -> None:
    """Draw a dark, striped oval with a darker outline: not a membrane, and not to be segmented."""
    rng, size = canvas.rng, canvas.size
    row, col = (axis - place for axis, place in zip(grid(size), rng.random(2) * size, strict=True))
    turn, flat = 2 * np.pi * rng.random(), between(rng, 0.5, 1)
    radius = between(rng, 4, 9) * canvas.scale
    along, across = row * np.cos(turn) + col * np.sin(turn), col * np.cos(turn) - row * np.sin(turn)
    depth_px = radius - np.sqrt(along**2 + (across / flat) ** 2)
    stripes = 12 * np.cos(2 * along / canvas.scale)
    image -= np.clip(depth_px + 0.5, 0, 1) * (34 + stripes)
    image -= 18 * np.clip(1.2 - abs(depth_px), 0, 1)


def _wall_distance(canvas: Canvas) -> Field:
    """Return the distance to the nearest wall of warped Voronoi cells, of uneven thickness."""
    rng, size = canvas.rng, canvas.size
    width = 2.2 + 0.9 * canvas.scale
    across = max(2, round(canvas.fraction * size / (2 * width) * 1.15))
    row, col = grid(size)
    row = row + 0.07 * size * smooth(rng, size, 3) + 0.02 * size * smooth(rng, size, 9)
    col = col + 0.07 * size * smooth(rng, size, 3) + 0.02 * size * smooth(rng, size, 9)
    steps = np.arange(-1, across + 1)  # a jittered grid that reaches one cell beyond the image
    corners = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    points = (corners + rng.random(corners.shape)) * size / across
    places = np.stack([row, col], axis=-1)
    nearest = points[KDTree(points).query(places, k=2)[1]]
    squared = ((places[:, :, None] - nearest) ** 2).sum(axis=-1)
    gap = nearest[:, :, 0] - nearest[:, :, 1]
    wall: Field = squared[..., 1] - squared[..., 0]
    wall = wall / (2 * np.sqrt(gap[..., 0] ** 2 + gap[..., 1] ** 2))
    return wall * (1 + 0.35 * smooth(rng, size, 6))


def _polygon_depth(canvas: Canvas, class_id: int, radius: float) -> Field:
    """Return the depth in a disc (1), or a turned square (2) or triangle (3) of the same area."""
    rng, size = canvas.rng, canvas.size
    row, col = (axis - place for axis, place in zip(grid(size), rng.random(2) * size, strict=True))
    turn = 2 * np.pi * float(rng.random())
    if class_id == 1:
        disc: Field = radius - np.sqrt(row * row + col * col)
        return disc
    # A regular polygon of n sides and apothem a has the area n a^2 tan(pi / n).
    sides = 4 if class_id == 2 else 3
    apothem = radius * (np.pi / (sides * np.tan(np.pi / sides))) ** 0.5
    angles = turn + 2 * np.pi * np.arange(sides) / sides
    polygon: Field = apothem - np.max([row * np.sin(a) + col * np.cos(a) for a in angles], axis=0)
    return polygon
