"""An image with the classes of its pixels laid over it, and which colour is which class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.core.class_masks import IGNORED, Packed, colour
from saccade.core.errors import one_line
from saccade.core.layers import Layers
from saccade.core.segmentation import BACKGROUND, Segmentation

SMALLEST = 320
FILLED = 0.45  # share of the colour within a region
MOST = 12  # classes that are named


def drawn(image: NDArray[np.uint8], result: Segmentation, truth: Any | None = None) -> Image.Image:
    """uint8 `[H, W, C]`, C 1 or 3, or of a large one every `result.packed.step`th pixel and row -> the image so, enlarged by whole pixels
    where small, with each region in the colour of its class and an edge around it; the edges of `truth` (Packed, of the same image) in
    white; names and shares below."""
    step = result.packed.step
    mask = result.packed.every(step)
    image = image[::step, ::step] if image.shape[:2] == result.size else image
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image and mask must be of one size, got {image.shape[:2]} and {result.size}")
    factor = max(1, -(-SMALLEST // max(mask.shape)))
    large = image.repeat(factor, 0).repeat(factor, 1)
    pixels = np.broadcast_to(large, (*large.shape[:2], 3)).astype(np.float32)
    colours = np.array([colour(label) for label in range(len(result.classes))], np.float32)
    if isinstance(result, Layers):
        colours = np.array([colour(label + 1) for label in range(len(result.classes))], np.float32)  # none of them is a background
        maps = [(mask >> label & 1).astype(np.uint8) for label in range(len(result.classes))]
        painted = [(one, one == 1, colours[label]) for label, one in enumerate(maps)]
    else:
        told = [label for label in np.unique(mask).tolist() if label != IGNORED and result.classes[label] != BACKGROUND]
        painted = [(mask, mask == label, colours[label]) for label in told]
    for of, inside, tone in painted:
        wide = inside.repeat(factor, 0).repeat(factor, 1)
        pixels[wide] += FILLED * (tone - pixels[wide])
        pixels[_edges(of.repeat(factor, 0).repeat(factor, 1)) & wide] = tone
    if isinstance(truth, Packed):
        right = truth.every(step).repeat(factor, 0).repeat(factor, 1)
        pixels[_edges(right) & (right != IGNORED)] = 255
    return _named(Image.fromarray(pixels.round().astype(np.uint8)), result, colours)


def _edges(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with another class at their right or below."""
    edge = np.zeros(mask.shape, bool)
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    return edge


def _named(picture: Image.Image, result: Segmentation, colours: NDArray[np.float32]) -> Image.Image:
    """The picture over lines that name the classes, those of largest share first."""
    height = max(12, picture.width // 32)
    font = ImageFont.load_default(height)
    labels = [label for label in result.labels.tolist() if result.classes[label] != BACKGROUND][:MOST]
    places: list[tuple[float, int, int, str]] = []
    x, line = 4.0, 0
    for label in labels:
        text = f"{one_line(result.classes[label])} {100 * result.shares[result.classes[label]]:.1f} %"
        wide = height * 1.3 + font.getlength(text) + height
        if x > 4 and x + wide > picture.width:
            x, line = 4.0, line + 1
        places.append((x, line, label, text))
        x += wide
    step = round(height * 1.6)
    page = Image.new("RGB", (picture.width, picture.height + step * (line + 1 if labels else 0)), "white")
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    for left, row, label, text in places:
        top = picture.height + row * step + (step - height) // 2
        red, green, blue = (round(float(value)) for value in colours[label])
        draw.rectangle((left, top, left + height, top + height), fill=(red, green, blue))
        draw.text((left + 1.3 * height, top + height / 2), text, fill="black", font=font, anchor="lm")
    return page
