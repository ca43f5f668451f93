"""An image with its answer written below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.core.errors import one_line
from saccade.core.results import Classification

SMALLEST = 224
RIGHT, WRONG, NEUTRAL = "#1b7837", "#b2182b", "#222222"


def caption(image: NDArray[np.uint8], result: Classification, truth: int | None = None) -> Image.Image:
    """uint8 `[H, W, C]`, C 1 or 3 -> the image, enlarged by whole pixels where tiny, over a line with label and score."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
    factor = max(1, -(-SMALLEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    height = max(12, picture.width // 16)
    font = ImageFont.load_default(height)
    text, color = f"{one_line(result.label)}  {result.score:.3f}", NEUTRAL
    if truth is not None:
        right = int(result.labels[0]) == truth
        text, color = (text, RIGHT) if right else (f"{text}  (is {one_line(result.classes[truth])})", WRONG)
    while len(text) > 4 and font.getlength(text) > picture.width - 8:
        text = text[:-2].rstrip("…") + "…"
    line = round(height * 1.6)
    page = Image.new("RGB", (picture.width, picture.height + line), "white")
    page.paste(picture)
    ImageDraw.Draw(page).text((4, picture.height + line // 2), text, fill=color, font=font, anchor="lm")
    return page
