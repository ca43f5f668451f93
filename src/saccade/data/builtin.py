"""Data of known truth that needs no download: drawn shapes of any size, and scikit-learn's handwritten digits, as class folders of PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys
from saccade.core.errors import UserError, unknown
from saccade.data.writing import new_folder

if TYPE_CHECKING:
    from saccade.core.progress import Progress

SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")
TASKS = ("classify",)
SPLITS = ("train", "val", "test")
MIN_SIDE = 8
MAX_SIDE = 4096
DIGITS_HELD_OUT = 0.2


@dataclass(frozen=True)
class Shape:
    """One drawn shape. center: (x, y) in pixels of the image, the middle of its first pixel being (0.5, 0.5); radius: of the circle around
    it, in pixels; angle: degrees it is turned clockwise on the screen."""

    name: str
    center: tuple[float, float]
    radius: float
    angle: float


def make_shapes(
    out: Path, *, task: str = "classify", n: int = 600, size: tuple[int, int] = (64, 64), seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Draw `n` images of six shapes to `out/{train,val,test}/CLASS/00001.png`, and their truth to `out/truth.json`.

    The splits hold 70, 15 and 15 % of each class, at least one image; classes differ by one image at most. size: (height, width). Image i
    depends on (seed, i) and the size alone. `out` must be absent or empty; it appears complete or not at all.
    Returns `{"path", "task", "images", "classes", "splits"}`, the last with images by split. Raises UserError.
    """
    out = Path(out)
    if task not in TASKS:
        raise unknown("task of made-up data", task, TASKS)
    if n < 3 * len(SHAPES):
        raise UserError(f"n must be at least {3 * len(SHAPES)}, one image of each of {len(SHAPES)} classes in each split, was {n}")
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise UserError(f"size must be {MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE} (height x width), was {size[0]}x{size[1]}")
    with new_folder(out) as folder:
        truth = _draw_all(folder, n, size, seed, progress)
    names = [name.split("/")[0] for name in truth]
    splits = {split: names.count(split) for split in SPLITS}
    return {"path": str(out), "task": task, "images": n, "classes": list(SHAPES), "splits": splits}


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


def write_digits(out: Path, *, size: int = 8) -> Path:
    """Write the 1,797 handwritten digits of `sklearn.datasets.load_digits` as grey PNG to `out/{train,test}/DIGIT/0001.png`.

    A fifth of each class (364 images), chosen by the hash of its name, is held out as `test`. The values 0..16 become 0..255; a `size`
    above 8 enlarges by bicubic interpolation. A folder that holds exactly these images is kept; another non-empty one is a UserError.
    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0.
    """
    from PIL import Image

    out = Path(out)
    if not 8 <= size <= MAX_SIDE:
        raise UserError(f"size of the digits must be 8 to {MAX_SIDE} pixels, was {size}")
    files = _digits(size)
    if _holds(out, files):
        return out
    with new_folder(out) as folder:
        _make_parents(folder, files)
        for name, pixels in files.items():
            Image.fromarray(pixels).save(folder / name)
    return out


# Shapes


def _draw_all(folder: Path, n: int, size: tuple[int, int], seed: int, progress: Progress | None) -> dict[str, Any]:
    """Draw and write everything; the truth by relative path."""
    from PIL import Image

    names = _shape_names(n)
    _make_parents(folder, names)
    truth: dict[str, Any] = {}
    if progress:
        progress.start("shapes", n)
    for index, name in enumerate(names):
        pixels, shape = draw_shape(index, size=size, seed=seed)
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        center = [round(value, 3) for value in shape.center]
        truth[name] = {"class": shape.name, "center": center, "radius": round(shape.radius, 3), "angle": round(shape.angle, 3)}
        if progress:
            progress.advance()
    if progress:
        progress.finish()
    (folder / "truth.json").write_text(json.dumps({"images": truth}, indent=1) + "\n", encoding="utf-8")
    return truth


def _shape_names(n: int) -> list[str]:
    """The relative path of each of `n` images: classes take turns, and of each class the last 15 % are `test`, those before them `val`."""
    names = []
    for index in range(n):
        kind, place = index % len(SHAPES), index // len(SHAPES)
        count = len(range(kind, n, len(SHAPES)))
        held = max(1, round(0.15 * count))
        split = "test" if place >= count - held else "val" if place >= count - 2 * held else "train"
        names.append(f"{split}/{SHAPES[kind]}/{index + 1:05d}.png")
    return names


def _two_colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Background and figure, float `[3]` each, far enough apart to be told under texture and noise."""
    ground = rng.uniform(20, 235, 3)
    figure = rng.uniform(20, 235, (64, 3))
    far = np.linalg.norm(figure - ground, axis=1) >= 90
    return ground, figure[int(np.argmax(far))]


def _texture(rng: np.random.Generator, size: tuple[int, int], colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """Float `[H, W, 3]`: the colour with soft blotches, a slope of light and stripes, all of random strength."""
    from PIL import Image

    height, width = size
    coarse = rng.normal(0, rng.uniform(4, 16), (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3)).astype(np.float32)
    planes = [Image.fromarray(coarse[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    turn, light = rng.uniform(0, 2 * math.pi), rng.uniform(0, 30)
    along = x * math.cos(turn) + y * math.sin(turn)
    stripes = rng.uniform(0, 12) * np.sin(2 * math.pi * rng.uniform(1, 8) * along + rng.uniform(0, 6))
    texture: NDArray[np.float64] = np.stack([np.asarray(plane) for plane in planes], axis=2) + colour
    texture += (light * (along - 0.5) + stripes)[:, :, None]
    return texture


def _distance(shape: Shape, size: tuple[int, int]) -> NDArray[np.float64]:
    """Signed distance in pixels of each pixel's middle to the outline, `[H, W]`, negative inside."""
    height, width = size
    dx = np.arange(width)[None, :] + 0.5 - shape.center[0]
    dy = np.arange(height)[:, None] + 0.5 - shape.center[1]
    far: NDArray[np.float64] = np.hypot(dx, dy)
    if shape.name == "circle":
        return far - shape.radius
    if shape.name == "ring":
        return np.abs(far - 0.75 * shape.radius) - 0.25 * shape.radius
    turn = math.radians(shape.angle)
    x, y = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
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


# Digits


def _digits(size: int) -> dict[str, NDArray[np.uint8]]:
    """Every picture by its relative path."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = np.rint(data.images * (255 / 16)).astype(np.uint8)
    by_digit: dict[int, list[int]] = {digit: np.flatnonzero(data.target == digit).tolist() for digit in range(10)}
    files = {}
    for digit, members in by_digit.items():
        names = {index: f"{digit}/{place + 1:04d}.png" for place, index in enumerate(members)}
        order = sorted(members, key=lambda index, names=names: keys.path_hash(names[index]))  # type: ignore[misc]
        held = set(order[: math.ceil(DIGITS_HELD_OUT * len(members))])
        for index in members:
            picture = pictures[index]
            if size > 8:
                picture = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
            files[f"{'test' if index in held else 'train'}/{names[index]}"] = picture
    return files


def _holds(out: Path, files: Mapping[str, NDArray[np.uint8]]) -> bool:
    """Whether `out` holds exactly these pictures."""
    from saccade.core.images import read

    if not out.is_dir():
        return False
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    if found != set(files):
        return False
    try:
        return all(np.array_equal(read(out / name, channels=1).pixels[:, :, 0], pixels) for name, pixels in files.items())
    except UserError:
        return False


# Folders


def _make_parents(folder: Path, names: Mapping[str, Any] | list[str]) -> None:
    for parent in sorted({Path(name).parent for name in names}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
