"""An image with its answer drawn over it: a box, or a mask, and a name for each object, in the colour of its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from saccade.core import run_lengths
from saccade.core.errors import one_line
from saccade.core.results import Detections, Instances
from saccade.core.run_lengths import Rle

SMALLEST = 320
# Okabe and Ito's, apart for colour-blind eyes too, but for black and yellow; then their mixtures with white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TRUTH = "#ffffff"
FILLED = 0.35  # share of the colour within a mask


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def drawn(image: NDArray[np.uint8], result: Detections, truth: Any | None = None, colour: Callable[[int], str] = _colour) -> Image.Image:
    """uint8 `[H, W, C]`, C 1 or 3 -> the image, enlarged by whole pixels where small, with boxes or masks, names and scores; `truth`
    (Objects of the same image) as thin white lines below them. A name stands beside its box, or within its mask where there is room.
    colour: of a class, "#rrggbb"."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
    factor = max(1, -(-SMALLEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    line = max(2, max(picture.size) // 300)
    shaped = isinstance(result, Instances)
    if isinstance(result, Instances):
        picture = _covered(picture, result, truth.masks if truth is not None else (), (factor, line), colour)
    page = ImageDraw.Draw(picture)
    for box in truth.boxes.tolist() if truth is not None and not shaped else ():
        page.rectangle([value * factor for value in box], outline=TRUTH, width=max(1, line // 2))
    height = max(11, max(picture.size) // 45)
    font = ImageFont.load_default(height)
    taken: list[tuple[float, float, float, float]] = []
    order = np.argsort(result.scores, kind="stable").tolist()  # the surest on top
    for place in order if not shaped else ():
        page.rectangle((result.boxes[place] * factor).tolist(), outline=colour(int(result.labels[place])), width=line)
    for place in reversed(order):
        text = f"{one_line(result.classes[int(result.labels[place])])} {result.scores[place]:.2f}"
        wide, tall = font.getlength(text) + 4, height + 4
        spot = _spot((result.boxes[place] * factor).tolist(), (wide, tall), picture.size, taken, within=shaped)
        if spot is None:
            continue  # the box says it: a name over another name says nothing
        taken.append(spot)
        page.rectangle(spot, fill=colour(int(result.labels[place])))
        page.text((spot[0] + 2, (spot[1] + spot[3]) / 2), text, fill="white", font=font, anchor="lm")
    return picture


def _spot(
    box: list[float], size: tuple[float, float], page: tuple[int, int], taken: list[tuple[float, float, float, float]], *, within: bool
) -> tuple[float, float, float, float] | None:
    """Where a name of `size` (width, height) fits beside its box without covering another: above, below, or inside of it; None: nowhere.
    within: in its middle only."""
    left = max(0.0, min(box[0], page[0] - size[0]))
    if within:
        if size[0] > box[2] - box[0] or size[1] > box[3] - box[1]:
            return None
        left = (box[0] + box[2] - size[0]) / 2
    for top in ((box[1] + box[3] - size[1]) / 2,) if within else (box[1] - size[1], box[3], box[1]):
        spot = (left, top, left + size[0], top + size[1])
        free = all(spot[2] <= one[0] or one[2] <= spot[0] or spot[3] <= one[1] or one[3] <= spot[1] for one in taken)
        if free and top >= 0 and spot[3] <= page[1]:
            return spot
    return None


def _covered(
    picture: Image.Image, result: Instances, truths: Sequence[Rle], scale: tuple[int, int], colour: Callable[[int], str]
) -> Image.Image:
    """Truths as white lines, then masks in the colours of their classes, with stronger edges, the surest on top. scale: how many times the
    picture is enlarged, and how wide lines are."""
    factor, line = scale
    pixels = np.asarray(picture).astype(np.float32)
    for mask in truths:
        shape, place = _patch(mask, factor)
        pixels[place][_edge(shape, max(1, line // 2))] = 255
    for row in np.argsort(result.scores, kind="stable").tolist():
        shape, place = _patch(result.masks[row], factor)
        tone = np.array(ImageColor.getrgb(colour(int(result.labels[row]))), np.float32)
        inner = shape & ~_edge(shape, line)
        pixels[place][inner] += FILLED * (tone - pixels[place][inner])
        pixels[place][shape & ~inner] = tone
    return Image.fromarray(pixels.round().astype(np.uint8))


def _patch(mask: Rle, factor: int) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """A mask's pixels in the enlarged picture, and where they lie."""
    part = run_lengths.patch(mask)
    shape = part.pixels.repeat(factor, 0).repeat(factor, 1)
    top, left = part.top * factor, part.left * factor
    return shape, (slice(top, top + shape.shape[0]), slice(left, left + shape.shape[1]))


def _edge(shape: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The outer pixels of a shape."""
    inner: NDArray[np.bool_] = binary_erosion(shape, iterations=width)
    return shape & ~inner
