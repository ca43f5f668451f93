"""An image with its answer drawn over it: a box and a name for each object, in the colour of its class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.core.errors import one_line
from saccade.core.results import Detections

SMALLEST = 320
# Okabe and Ito's, apart for colour-blind eyes too, but for black and yellow; then their mixtures with white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TRUTH = "#ffffff"


def boxes(image: NDArray[np.uint8], result: Detections, truth: Any | None = None) -> Image.Image:
    """uint8 `[H, W, C]`, C 1 or 3 -> the image, enlarged by whole pixels where small, with boxes, names and scores; `truth` (Objects of the
    same image) as thin white boxes below them."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
    factor = max(1, -(-SMALLEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    page = ImageDraw.Draw(picture)
    line = max(2, max(picture.size) // 300)
    for box in truth.boxes.tolist() if truth is not None else ():
        page.rectangle([value * factor for value in box], outline=TRUTH, width=max(1, line // 2))
    height = max(11, max(picture.size) // 45)
    font = ImageFont.load_default(height)
    taken: list[tuple[float, float, float, float]] = []
    order = np.argsort(result.scores, kind="stable").tolist()  # the surest on top
    for place in order:
        page.rectangle((result.boxes[place] * factor).tolist(), outline=_colour(int(result.labels[place])), width=line)
    for place in reversed(order):
        text = f"{one_line(result.classes[int(result.labels[place])])} {result.scores[place]:.2f}"
        wide, tall = font.getlength(text) + 4, height + 4
        spot = _spot((result.boxes[place] * factor).tolist(), (wide, tall), picture.size, taken)
        if spot is None:
            continue  # the box says it: a name over another name says nothing
        taken.append(spot)
        page.rectangle(spot, fill=_colour(int(result.labels[place])))
        page.text((spot[0] + 2, (spot[1] + spot[3]) / 2), text, fill="white", font=font, anchor="lm")
    return picture


def _spot(
    box: list[float], size: tuple[float, float], page: tuple[int, int], taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float] | None:
    """Where a name of `size` (width, height) fits beside its box without covering another: above, below, or inside of it; None: nowhere."""
    left = max(0.0, min(box[0], page[0] - size[0]))
    for top in (box[1] - size[1], box[3], box[1]):
        spot = (left, top, left + size[0], top + size[1])
        free = all(spot[2] <= one[0] or one[2] <= spot[0] or spot[3] <= one[1] or one[3] <= spot[1] for one in taken)
        if free and top >= 0 and spot[3] <= page[1]:
            return spot
    return None


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]
