"""Data of known truth that needs no download: drawn shapes of any size, and scikit-learn's handwritten digits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys
from saccade.core.errors import UserError, unknown
from saccade.data import scenes
from saccade.data.drawing import SHAPES, draw_shape
from saccade.data.writing import new_folder

if TYPE_CHECKING:
    from saccade.core.progress import Progress

TASKS = ("classify", *scenes.FORMATS)
SPLITS = ("train", "val", "test")
MIN_SIDE = 8
MAX_SIDE = 4096
DIGITS_HELD_OUT = 0.2


def make_shapes(
    out: Path,
    *,
    task: str = "classify",
    n: int = 600,
    size: tuple[int, int] = (64, 64),
    seed: int = 0,
    format: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw `n` images of six shapes, by default to `out/{train,val,test}/CLASS/00001.png` with their truth in `out/truth.json`.

    For classify an image shows one shape, else up to six (see `scenes`), and `format` is one that holds such a set, by default
    `scenes.FORMATS`. The splits hold 70, 15 and 15 % (classify: of each class, at least one image; classes differ by one image at most).
    size: (height, width). Image i depends on (seed, i) and the size alone. `out`, absent or empty, appears complete or not at all.
    Returns `{"path", "task", "images", "classes", "splits"}`, the last with images by split. Raises UserError.
    """
    out = Path(out)
    if task not in TASKS:
        raise unknown("task of made-up data", task, TASKS)
    if n < 3 * len(SHAPES):
        raise UserError(f"n must be at least {3 * len(SHAPES)}, one image of each of {len(SHAPES)} classes in each split, was {n}")
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise UserError(f"size must be {MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE} (height x width), was {size[0]}x{size[1]}")
    if task != "classify" or format:
        return scenes.write(out, scenes.made(task, [name.partition("/")[0] for name in _names(n)], size, seed), format, progress)
    with new_folder(out) as folder:
        truth = _draw_all(folder, n, size, seed, progress)
    names = [name.split("/")[0] for name in truth]
    splits = {split: names.count(split) for split in SPLITS}
    return {"path": str(out), "task": task, "images": n, "classes": list(SHAPES), "splits": splits}


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

    names = _names(n)
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


def _names(n: int) -> list[str]:
    """The relative path of each of `n` images: classes take turns, and of each class the last 15 % are `test`, those before them `val`."""
    names = []
    for index in range(n):
        kind, place = index % len(SHAPES), index // len(SHAPES)
        count = len(range(kind, n, len(SHAPES)))
        held = max(1, round(0.15 * count))
        split = "test" if place >= count - held else "val" if place >= count - 2 * held else "train"
        names.append(f"{split}/{SHAPES[kind]}/{index + 1:05d}.png")
    return names


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
