"""The findings as one page that needs no other file: by code, with what each means and what helps, and the images they are about."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from saccade.core import files, images
from saccade.core.errors import UserError
from saccade.data import shapes
from saccade.data.annotations import Annotations, Object, Picture
from saccade.data.findings import KINDS, Finding

if TYPE_CHECKING:
    from saccade.data.doctor import Report

THUMBNAILS = 200
SIDE = 240  # pixels of a thumbnail's longer side
ROWS = 500  # findings of one code that are listed
BOXES = 100  # of an image that are drawn


def write(out: Path, annotations: Annotations, report: Report, workers: int = 2) -> Path:
    """Write the page; raises UserError where `out` cannot be written."""
    from importlib import resources

    facts = json.dumps(_facts(annotations, report, workers), ensure_ascii=True, allow_nan=False).replace("</", "<\\/")
    page = resources.files("saccade.data").joinpath("pages").joinpath("findings.html").read_text("utf-8")
    return files.write_bytes(out, page.replace("/*FACTS*/", facts).encode("utf-8"))


def _facts(annotations: Annotations, report: Report, workers: int) -> dict[str, Any]:
    by_code: dict[str, list[Finding]] = {}
    for found in report.findings:
        by_code.setdefault(found.code, []).append(found)
    listed = {code: group[:ROWS] for code, group in by_code.items()}
    of = _images_of(annotations, [found for group in listed.values() for found in group])
    chosen = _chosen([[of[found.path, found.line] for found in group if (found.path, found.line) in of] for group in listed.values()])
    with ThreadPoolExecutor(workers) as pool:
        thumbnails = dict(zip(chosen, pool.map(lambda index: _thumbnail(annotations, index), chosen), strict=True))
    groups = []
    for code, group in by_code.items():
        kind = KINDS[code]
        head = {"code": code, "severity": kind.severity, "meaning": kind.meaning, "repair": kind.repair, "count": len(group)}
        groups.append({**head, "rows": [_row(found, of.get((found.path, found.line))) for found in listed[code]]})
    head = {key: value for key, value in report.to_dict().items() if key not in ("findings", "counts")}
    name = _text(annotations.opened.name or annotations.format)
    classes = [_text(one) for one in annotations.classes]
    shown = {str(index): facts for index, facts in thumbnails.items() if facts}
    return {**head, "name": name, "classes": classes, "groups": groups, "thumbnails": shown}


def _images_of(annotations: Annotations, findings: Sequence[Finding]) -> dict[tuple[str, int], int]:
    """(path, line) of findings -> index of the image they are about."""
    wanted = {(found.path, found.line) for found in findings}
    of: dict[tuple[str, int], int] = {}
    for index, item in enumerate(annotations.items):
        places = [(item.path, 0), (item.mask, 0), (item.where, item.line), *((item.where, one.line) for one in item.objects if one.line)]
        for place in wanted.intersection(places):
            of.setdefault(place, index)
    return of


def _chosen(groups: Sequence[Sequence[int]]) -> list[int]:
    """Images to show, THUMBNAILS at most: those of the first finding of each code, then of the second ones, and so on."""
    chosen: dict[int, None] = {}
    for turn in range(max(map(len, groups), default=0)):
        for group in groups:
            if turn < len(group) and len(chosen) < THUMBNAILS:
                chosen[group[turn]] = None
    return list(chosen)


def _row(found: Finding, index: int | None) -> dict[str, Any]:
    row = {"path": _text(found.path), "line": found.line, "object": found.object, "message": _text(found.message)}
    return {**row, "image": index}


def _thumbnail(annotations: Annotations, index: int) -> dict[str, Any] | None:
    """A small JPEG, the image's true size, and boxes in its pixels; None where it cannot be read."""
    item = annotations.items[index]
    try:
        picture = images.shown(annotations.tree.image(item.path), covering=(SIDE, SIDE))
    except UserError:
        return None
    small = Image.fromarray(picture.pixels)
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    boxes = [(place, _box(one, picture.size, annotations), one.label) for place, one in enumerate(item.objects)]
    drawn = [{"object": place, "box": box, "label": label} for place, box, label in boxes if box]
    return {
        "src": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}",
        "height": picture.size[0],
        "width": picture.size[1],
        "path": _text(item.path),
        "boxes": drawn[:BOXES],
    }


def _box(one: Object, size: tuple[int, int], annotations: Annotations) -> list[float] | None:
    """Left, top, width, height, even of a box whose edges are the wrong way round; None where it cannot be drawn."""
    if one.box is None and (isinstance(one.shape, Picture | None) or (isinstance(one.shape, tuple) and not all(one.shape))):
        return None
    box = shapes.box(one, size, annotations.tree) if one.box or one.shape else (0.0,) * 4
    if not all(isfinite(v) and abs(v) < 1e7 for v in box):
        return None
    (left, right), (top, bottom) = sorted((box[0], box[2])), sorted((box[1], box[3]))
    return [round(left, 1), round(top, 1), round(right - left, 1), round(bottom - top, 1)]


def _text(text: str) -> str:
    """A name that every encoding can hold: bytes that are no text are shown by their codes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
