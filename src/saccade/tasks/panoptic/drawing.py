"""An image with its segments drawn over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.core import class_masks
from saccade.core.panoptic import Panoptic
from saccade.objects import drawing

DARK = 0.75  # of the colours of classes, so that white names can be read on them


def drawn(image: NDArray[np.uint8], result: Panoptic, truth: Any | None = None) -> Image.Image:
    """uint8 `[H, W, C]`, C 1 or 3 -> the image with all segments as objects with masks are drawn, but for many classes in as many
    colours; the edges of the true ones (Objects) in white below them."""
    return drawing.drawn(image, result.to_instances(stuff=True), truth, _colour)


def _colour(label: int) -> str:
    return "#" + "".join(f"{round(DARK * part):02x}" for part in class_masks.colour(label + 1))
