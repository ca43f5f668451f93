"""Single objects of an evaluation, cut out of their images: found, found though they are none, missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.core import images
from saccade.core.errors import UserError, one_line
from saccade.core.results import Detections
from saccade.data.sample import Objects
from saccade.data.tree import Tree
from saccade.objects.metrics import compared

NEAR = 0.5
SHOWN, COLUMNS = 12, 6
CELL, LINE = 150, 18  # pixels of a picture's side, and of the words below it
AROUND = 0.6  # of a box's longer side, that is shown beyond it
LEAST = 24  # pixels of the image that are shown at least
WHITE, BLUE, RED = "#ffffff", "#0072b2", "#d55e00"


@dataclass(frozen=True)
class _Cut:
    """A box x1, y1, x2, y2 of the image `source`, what is said of it, and by how much it comes first."""

    source: str
    box: tuple[float, ...]
    text: str
    weight: float


def matched(found: Detections, truth: Objects) -> tuple[list[int], list[int], list[int]]:
    """Places of detections that show an object of their class, the surest first to each; of those that show none, or one that is taken;
    and of the objects that were missed. What is in a crowd is neither."""
    near = (compared(found, truth)[0] >= NEAR) & (found.labels[:, None] == truth.labels)
    free = ~truth.crowd
    right, false = [], []
    for place, row in enumerate(near):  # the surest first
        taken = np.flatnonzero(row & free)
        if len(taken):
            free[taken[0]] = False
            right.append(place)
        elif not (row & truth.crowd).any():
            false.append(place)
    return right, false, np.flatnonzero(free).tolist()


def sheets(answers: Sequence[tuple[Detections, Objects]], tree: Tree, channels: int) -> Iterator[Mapping[str, Any]]:
    """{"title", "text", "picture"} for each kind of which there is any; images that cannot be read are left out."""
    right, false, missed = _cuts(answers)
    spread = [right[place] for place in np.unique(np.linspace(0, len(right) - 1, SHOWN).astype(int))] if right else []
    kinds = (
        ("Found", f"{len(right):,} objects were found; some of them, from the surest to the least sure.", spread, BLUE),
        ("Found, but not there", f"{len(false):,} detections are of no object, or of another class; the surest.", false[:SHOWN], RED),
        ("Missed", f"{len(missed):,} objects were missed; the largest.", missed[:SHOWN], WHITE),
    )
    for title, text, cuts, colour in kinds:
        cells = _cells(cuts, tree, channels, colour)
        if cells:
            yield {"title": title, "text": text, "picture": _page(cells)}


def _cuts(answers: Sequence[tuple[Detections, Objects]]) -> tuple[list[_Cut], list[_Cut], list[_Cut]]:
    """All of each kind, what is shown first in front."""
    right: list[_Cut] = []
    false: list[_Cut] = []
    missed: list[_Cut] = []
    for found, truth in answers:
        places = matched(found, truth)
        near = compared(found, truth)[0]
        for kind, chosen in ((right, places[0]), (false, places[1])):
            for place in chosen:
                score = float(found.scores[place])
                told = f"{found.names[place]} {score:.2f}"
                there = int(near[place].argmax()) if len(truth.labels) and near[place].max() >= NEAR else -1
                other = "" if kind is right or there < 0 else f" is {found.classes[int(truth.labels[there])]}"
                kind.append(_Cut(found.source, tuple(found.boxes[place].tolist()), told + other, score))
        for place in places[2]:
            box = truth.boxes[place]
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            missed.append(_Cut(found.source, tuple(box.tolist()), found.classes[int(truth.labels[place])], area))
    first, second, third = (sorted(cuts, key=lambda cut: (-cut.weight, cut.source)) for cuts in (right, false, missed))
    return first, second, third


def _cells(cuts: Sequence[_Cut], tree: Tree, channels: int, colour: str) -> list[Image.Image]:
    """A picture for each, in their order; each image is read once, one at a time."""
    made: dict[int, Image.Image] = {}
    for source in dict.fromkeys(cut.source for cut in cuts):
        try:
            pixels = images.shown(tree.image(source), channels=channels).pixels
        except UserError:
            continue
        made |= {place: _cell(pixels, cut, colour) for place, cut in enumerate(cuts) if cut.source == source}
    return [made[place] for place in sorted(made)]


def _cell(pixels: NDArray[np.uint8], cut: _Cut, colour: str) -> Image.Image:
    """The box in the middle of what is around it, over its words."""
    left, top, right, bottom = cut.box
    half = max(LEAST / 2, max(right - left, bottom - top) * (0.5 + AROUND / 2))
    middle = (left + right) / 2, (top + bottom) / 2
    x, y = (max(0, int(value - half)) for value in middle)
    end_x, end_y = (min(side, int(np.ceil(value + half))) for value, side in zip(middle, (pixels.shape[1], pixels.shape[0]), strict=True))
    part = pixels[y : max(y + 1, end_y), x : max(x + 1, end_x)]
    picture = Image.fromarray(part[..., 0] if part.shape[2] == 1 else part).convert("RGB")
    factor = CELL / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), Image.Resampling.BICUBIC)
    shape = [(left - x) * factor, (top - y) * factor, (right - x) * factor, (bottom - y) * factor]
    ImageDraw.Draw(picture).rectangle(shape, outline=colour, width=2)
    page = Image.new("RGB", (CELL, CELL + LINE), "#444444")
    page.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    draw.rectangle((0, CELL, CELL, CELL + LINE), fill="white")
    draw.text((3, CELL + LINE // 2), one_line(cut.text)[:28], fill="black", font=font, anchor="lm")
    return page


def _page(cells: Sequence[Image.Image]) -> NDArray[np.uint8]:
    columns, gap = min(COLUMNS, len(cells)), 6
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (columns * (CELL + gap) - gap, rows * (CELL + LINE + gap) - gap), "white")
    for place, cell in enumerate(cells):
        page.paste(cell, (place % columns * (CELL + gap), place // columns * (CELL + LINE + gap)))
    return np.asarray(page)
