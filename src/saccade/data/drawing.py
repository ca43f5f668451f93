"""Shapes on a textured ground, drawn so that their outline is known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys

SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")
GROUNDS = ("checks", "plain", "stripes")  # what shapes lie on where it is of several kinds
MOST = 12  # shapes in a scene
Window: TypeAlias = tuple[slice, slice]  # rows and columns
ALL: Window = (slice(None), slice(None))
VISIBLE = 0.3  # of a shape's pixels that others must leave open


@dataclass(frozen=True)
class Shape:
    """One drawn shape. center: (x, y) in pixels of the image, the middle of its first pixel being (0.5, 0.5); radius: of the circle around
    it, in pixels; angle: degrees it is turned clockwise on the screen."""

    name: str
    center: tuple[float, float]
    radius: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """pixels: uint8 `[H, W, 3]`; shapes: each with the pixels (bool `[H, W]`) that those drawn later leave open, at least one; below: what
    lies below each pixel, a place in GROUNDS, uint8 `[H, W]`, all 0 where there are no kinds of ground."""

    pixels: NDArray[np.uint8]
    shapes: list[tuple[Shape, NDArray[np.bool_]]]
    below: NDArray[np.uint8]


def draw_shape(index: int, *, size: tuple[int, int], seed: int) -> tuple[NDArray[np.uint8], Shape]:
    """Image `index` of the made-up set: uint8 `[H, W, 3]` and what is on it."""
    rng = keys.generator(seed, "shapes", index)
    height, width = size
    radius = min(size) * rng.uniform(0.2, 0.42)
    center = (rng.uniform(radius, width - radius), rng.uniform(radius, height - radius))
    shape = Shape(SHAPES[index % len(SHAPES)], center, radius, rng.uniform(0, 360))
    ground, figure = _two_colours(rng)
    cover = np.clip(0.5 - _distance(shape, size), 0, 1)[:, :, None]
    image = _texture(rng, size, ground) * (1 - cover) + _texture(rng, size, figure) * cover
    image += rng.normal(0, rng.uniform(2, 14), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), shape


def draw_scene(index: int, *, size: tuple[int, int], seed: int, kinds: bool = False) -> Scene:
    """Scene `index`; with `kinds` the same shapes lie on one or two of GROUNDS.

    Every tenth shape or so reaches over the edge of the image. A shape that would be covered too much is not drawn.
    """
    rng = keys.generator(seed, "scenes", index)
    ground, _ = _two_colours(rng)
    image = _texture(rng, size, ground)
    below, grounds = np.zeros(size, np.uint8), ground[None]
    if kinds:
        below, grounds, pattern = _grounds(keys.generator(seed, "grounds", index), size)
        image += grounds[below] + pattern - ground
    lying = grounds[np.unique(below), None]
    found: list[tuple[Shape, NDArray[np.bool_], int]] = []  # each with the pixels that are left of it, and how many there were
    for _ in range(int(rng.integers(1, MOST + 1))):
        shape = _placed(rng, SHAPES[int(rng.integers(len(SHAPES)))], size)
        window = _window(shape, size)
        cover = np.clip(0.5 - _distance(shape, size, window), 0, 1)
        mask = np.zeros(size, bool)
        mask[window] = cover >= 0.5
        if any(seen.sum() - (seen[window] & mask[window]).sum() < VISIBLE * whole for _, seen, whole in found):
            continue
        for _, seen, _ in found:
            seen[window] &= ~mask[window]
        figure = rng.uniform(20, 235, (64, 3))
        colour = figure[int(np.argmax(np.linalg.norm(figure - lying, axis=2).min(0) >= 90))]
        image[window] += (_texture(rng, size, colour, window) - image[window]) * cover[:, :, None]
        found.append((shape, mask, int(mask.sum())))
    image += rng.normal(0, rng.uniform(2, 14), image.shape)
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), [(shape, seen) for shape, seen, _ in found if seen.any()], below)


def _grounds(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Where which of GROUNDS lies, uint8 `[H, W]`, the colour of each `[3, 3]`, and what it adds to that, `[H, W, 1]`: mostly two, with a
    wavy line between them."""
    (height, width), side = size, min(size)
    x, y = np.arange(width)[None] - width * rng.uniform(0.3, 0.7), np.arange(height)[:, None] - height * rng.uniform(0.3, 0.7)
    along, across = _turned(x, y, rng.uniform(0, 2 * math.pi))
    wave = side * rng.uniform(0, 0.08) * np.sin(2 * math.pi * across / (side * rng.uniform(0.4, 1.0)))
    first, second = rng.permutation(len(GROUNDS))[:2].tolist()
    below = np.where((along < wave) | (rng.random() < 0.25), first, second).astype(np.uint8)
    period = max(4.0, side * rng.uniform(0.08, 0.14))
    rows, columns = (np.clip(2 * np.sin(2 * math.pi * axis / period), -1, 1) for axis in _turned(x, y, rng.uniform(0, 2 * math.pi)))
    patterns = {"checks": rows * columns, "plain": 0.0 * rows, "stripes": rows}
    pattern = rng.uniform(25, 45) * np.choose(below, [patterns[name] for name in GROUNDS])
    return below, rng.uniform(60, 195, (len(GROUNDS), 3)), pattern[:, :, None]


def _turned(x: NDArray[Any], y: NDArray[Any], angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates turned by an angle in radians."""
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _placed(rng: np.random.Generator, name: str, size: tuple[int, int]) -> Shape:
    height, width = size
    radius = max(2.5, min(size) * rng.uniform(0.07, 0.24))
    inset = radius * (0.2 if rng.random() < 0.1 else 1.0)
    return Shape(name, (rng.uniform(inset, width - inset), rng.uniform(inset, height - inset)), radius, rng.uniform(0, 360))


def _two_colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Background and figure, float `[3]` each, far enough apart to be told under texture and noise."""
    ground = rng.uniform(20, 235, 3)
    figure = rng.uniform(20, 235, (64, 3))
    far = np.linalg.norm(figure - ground, axis=1) >= 90
    return ground, figure[int(np.argmax(far))]


def _window(shape: Shape, size: tuple[int, int]) -> Window:
    """The pixels that a shape may touch."""
    (x, y), reach = shape.center, shape.radius + 1
    return slice(max(0, int(y - reach)), min(size[0], int(y + reach) + 1)), slice(max(0, int(x - reach)), min(size[1], int(x + reach) + 1))


def _texture(rng: np.random.Generator, size: tuple[int, int], colour: NDArray[np.float64], window: Window = ALL) -> NDArray[np.float64]:
    """Float `[H, W, 3]`, of a window of the image: the colour with soft blotches, a slope of light and stripes, all of random strength."""
    from PIL import Image

    height, width = size
    coarse = rng.normal(0, rng.uniform(4, 16), (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3)).astype(np.float32)
    (top, bottom, _), (left, right, _) = window[0].indices(height), window[1].indices(width)
    tall, wide = coarse.shape[0] / height, coarse.shape[1] / width
    box = (left * wide, top * tall, right * wide, bottom * tall)
    shape = (right - left, bottom - top)
    planes = [Image.fromarray(coarse[:, :, c]).resize(shape, Image.Resampling.BICUBIC, box=box) for c in range(3)]
    y, x = np.linspace(0, 1, height)[window[0], None], np.linspace(0, 1, width)[None, window[1]]
    turn, light = rng.uniform(0, 2 * math.pi), rng.uniform(0, 30)
    along = x * math.cos(turn) + y * math.sin(turn)
    stripes = rng.uniform(0, 12) * np.sin(2 * math.pi * rng.uniform(1, 8) * along + rng.uniform(0, 6))
    texture: NDArray[np.float64] = np.stack([np.asarray(plane) for plane in planes], axis=2) + colour
    texture += (light * (along - 0.5) + stripes)[:, :, None]
    return texture


def _distance(shape: Shape, size: tuple[int, int], window: Window = ALL) -> NDArray[np.float64]:
    """Signed distance in pixels of each pixel's middle to the outline, `[H, W]` of a window of the image, negative inside."""
    dx = np.arange(size[1])[None, window[1]] + 0.5 - shape.center[0]
    dy = np.arange(size[0])[window[0], None] + 0.5 - shape.center[1]
    far: NDArray[np.float64] = np.hypot(dx, dy)
    if shape.name == "circle":
        return far - shape.radius
    if shape.name == "ring":
        return np.abs(far - 0.75 * shape.radius) - 0.25 * shape.radius
    turn = math.radians(shape.angle)
    x, y = _turned(dx, dy, turn)
    return _to_polygon(x / shape.radius, y / shape.radius, _outline(shape.name)) * shape.radius


def _outline(name: str) -> NDArray[np.float64]:
    """Corners `[N, 2]` of a polygon in the unit circle, y down, standing upright."""
    if name == "cross":
        a, b = 0.32, math.sqrt(1 - 0.32**2)
        quarter = np.array([(a, -b), (a, -a), (b, -a)])
        turns = [np.array([(math.cos(t), math.sin(t)), (-math.sin(t), math.cos(t))]) for t in np.arange(4) * math.pi / 2]
        return np.concatenate([quarter @ turn for turn in turns])
    corners, inner = {"square": (4, 0.0), "triangle": (3, 0.0), "star": (10, 0.42)}[name]
    angles = np.arange(corners) * 2 * math.pi / corners - math.pi / 2
    lengths = np.where(np.arange(corners) % 2 == 1, inner, 1.0) if inner else np.ones(corners)
    return np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)


def _to_polygon(x: NDArray[np.float64], y: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance of points to a polygon: the nearest edge, and inside by the number of edges that a ray crosses."""
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + ex * (y - ay) / ey)
    return np.where(inside, -nearest, nearest)
