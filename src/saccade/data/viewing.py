"""A contact sheet of a whole set, however large: one page that fetches what it shows, and draws labels over the images."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from saccade.core import class_masks, images, masks, run_lengths
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.data import shapes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.tree import FolderTree
from saccade.data.writing import new_folder

PER_PAGE = 60
SIDE = 320  # pixels of a thumbnail's longer side
SHOWN = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"))  # what browsers show
POINTS = 60  # of an outline
CHUNK = 600  # images prepared at a time


def view(annotations: Annotations, out: Path, *, progress: Progress, workers: int = 2) -> dict[str, Any]:
    """Write `out/index.html` and what it shows: images lie where they are, thumbnails are made only where a browser could not show them.

    Returns `{"page", "images", "pages"}`. Raises UserError where `out` cannot be written.
    """
    items = annotations.items
    pages = -(-len(items) // PER_PAGE)
    progress.start("drawing the contact sheet", len(items), "images")
    with new_folder(out) as folder:
        (folder / "pages").mkdir()
        for number, rows in enumerate(_pages(annotations, Path(os.path.abspath(out)), workers), 1):
            _script(folder / "pages" / f"{number}.js", f"page({number}", rows)
            progress.advance(len(rows))
        _script(folder / "pages" / "facts.js", "facts(0", _facts(annotations))
        for name in ("index.html", "sheet.css", "sheet.js"):
            (folder / name).write_text(_asset(name), encoding="utf-8")
    progress.finish()
    return {"page": str(out / "index.html"), "images": len(items), "pages": pages}


def _script(path: Path, call: str, value: Any) -> None:
    """A page opened from the disk may load scripts, not data: so the data are a script that hands them over."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    path.write_text(f"{call}, {text});\n".replace("</", "<\\/"), encoding="ascii")


def _asset(name: str) -> str:
    from importlib import resources

    return resources.files("saccade.data").joinpath("pages").joinpath(name).read_text("utf-8")


def _facts(annotations: Annotations) -> dict[str, Any]:
    """What the page must know from the start: which images hold which class, for choosing by class and split."""
    by_class: dict[int, list[int]] = {}
    by_split: dict[str, list[int]] = {}
    for place, item in enumerate(annotations.items):
        by_split.setdefault(item.split or "no split", []).append(place)
        for label in {*item.labels, *(one.label for one in item.objects)}:
            by_class.setdefault(label, []).append(place)
    return {
        "name": _text(annotations.opened.name or annotations.format),
        "format": annotations.format,
        "task": annotations.task,
        "images": len(annotations.items),
        "perPage": PER_PAGE,
        "classes": [_text(name) for name in annotations.classes],
        "hue": class_masks.HUE,
        "byClass": {str(label): places for label, places in sorted(by_class.items())},
        "bySplit": by_split,
    }


def _pages(annotations: Annotations, out: Path, workers: int) -> Iterator[list[dict[str, Any]]]:
    items = annotations.items
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), CHUNK):
            rows = list(pool.map(lambda item: _row(item, annotations, out), items[start : start + CHUNK]))
            yield from (rows[i : i + PER_PAGE] for i in range(0, len(rows), PER_PAGE))


def _row(item: Item, annotations: Annotations, out: Path) -> dict[str, Any]:
    """One image: its address or its thumbnail, its size, labels, boxes and outlines in its own pixels, or why it cannot be shown."""
    tree = annotations.tree
    row: dict[str, Any] = {"path": _text(item.path), "split": item.split, "labels": list(item.labels)}
    try:
        source = tree.image(item.path)
        height, width = images.probe(source).size
        row |= {"height": height, "width": width, "src": _address(item, annotations, out)}
        row["objects"] = [_object(one, (height, width), annotations) for one in shapes.unfolded(item.objects, tree)]
        if item.mask:
            row["mask"] = _mask(item, annotations)
    except UserError as error:
        row["error"] = _text(error.message)
    return row


def _address(item: Item, annotations: Annotations, out: Path) -> str:
    source = annotations.tree.image(item.path)
    if isinstance(annotations.tree, FolderTree) and os.path.splitext(item.path)[1].lower() in SHOWN:
        return quote(os.fsencode(os.path.relpath(annotations.tree.root / item.path, out)))
    picture = images.shown(source, covering=(SIDE, SIDE)).pixels
    return _data(picture, "JPEG")


def _object(one: Object, size: tuple[int, int], annotations: Annotations) -> dict[str, Any]:
    box = [round(v, 1) if np.isfinite(v) else 0 for v in shapes.box(one, size, annotations.tree)]
    row: dict[str, Any] = {"label": one.label, "box": box}
    if one.crowd or one.difficult:
        row["note"] = "crowd" if one.crowd else "difficult"
    if one.shape is not None:
        rings = (
            one.shape if isinstance(one.shape, tuple) else shapes.outlines(run_lengths.to_mask(shapes.rle(one, size, annotations.tree)))[0]
        )
        row["rings"] = [_thinned(ring) for ring in rings]
    return row


def _thinned(ring: tuple[float, ...]) -> list[float]:
    """At most about POINTS of an outline's points, to a tenth of a pixel."""
    points = np.nan_to_num(np.reshape(ring[: len(ring) // 2 * 2], (-1, 2)))
    kept = points[:: max(1, len(points) // POINTS)]
    found: list[float] = kept.round(1).reshape(-1).tolist()
    return found


def _mask(item: Item, annotations: Annotations) -> str:
    """The classes of the pixels as a small coloured picture; the first class and what is ignored stay clear."""
    legend = annotations.legend
    values = masks.read(annotations.tree.image(item.mask), colours=legend.colours)
    step = max(1, -(-max(values.shape) // SIDE))
    values = values[::step, ::step]
    picture = np.zeros((*values.shape, 4), np.uint8)
    for value, label in legend.values.items():
        if label:
            picture[values == value] = (*class_masks.colour(label), 150)
    return _data(picture, "PNG")


def _data(pixels: np.ndarray[Any, Any], kind: str) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    if kind == "JPEG":
        image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(text: str) -> str:
    """A name that every encoding can hold: bytes that are no text are shown by their codes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
