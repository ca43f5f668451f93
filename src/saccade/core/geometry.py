"""Where an image lies in the model's input, in whole pixels and exact integer arithmetic.

"crop" is the geometry, in whole pixels, of torchvision's evaluation presets (Resize, CenterCrop), to which published weights were
measured: an image H x W is scaled by max(h / H, w / W), so that it covers h x w. The side that decides becomes exactly h or w, the other
is rounded down, and the middle h x w of that is kept; half of an odd remainder is rounded to the even number.

"fit" keeps all of the image: it is scaled by min(h / H, w / W), so that it fits into h x w, and FILL is added at the right and at the
bottom until both sides are multiples of MULTIPLE. The shape is a function of the image alone, whatever stands beside it in a batch.

"native" keeps all of the image at its own pixels, whatever h x w is, and pads it in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MULTIPLE = 32  # by which networks with maps at a 32nd of the size divide
BLOCK = 64  # pixels between sides of canvases
CELL = 4  # pixels between places of the maps of which masks are summed up
CONIC = 6  # weights of a conic
SMALLEST = 2.0  # pixels of half a box, at least, by which a conic is measured
FILL = 114  # a grey that is neither dark nor light, as YOLO trainers use it


def covering(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) to which an image of `source` (height, width) is scaled so that it covers `size`; exact integer arithmetic."""
    (height, width), (h, w) = source, size
    if h * width >= w * height:
        return h, width * h // height
    return height * w // width, w


def margin(scaled: int, kept: int) -> int:
    """Pixels cut off at the top or left, where `kept` of `scaled` remain."""
    return round((scaled - kept) / 2)


def fitting(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) to which an image of `source` (height, width) is scaled so that it fits into `size`, a pixel at least."""
    (height, width), (h, w) = source, size
    if h * width <= w * height:
        return h, max(1, (2 * width * h + height) // (2 * height))
    return max(1, (2 * height * w + width) // (2 * width)), w


def scaled(source: tuple[int, int], size: tuple[int, int], resize: str) -> tuple[int, int]:
    """The (height, width) that an image of `source` (height, width) has in an input by "fit" or "native", before it is padded."""
    return source if resize == "native" else fitting(source, size)


def whole(size: tuple[int, int], resize: str) -> tuple[int, int]:
    """The (height, width) of an input for which an image of `size` is as large as the input: padded, but by "crop"."""
    return size if resize == "crop" else padded(size)


def padded(size: tuple[int, int]) -> tuple[int, int]:
    """The next (height, width) whose sides are multiples of MULTIPLE."""
    return -(-size[0] // MULTIPLE) * MULTIPLE, -(-size[1] // MULTIPLE) * MULTIPLE


def canvas(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of the canvas on which training places images of `source` (height, width) that are fitted into `size`: of their
    own shape, in steps of BLOCK pixels so that many share one, and no larger than that of `size` itself."""
    height, width = (min(most, -(-side // BLOCK) * BLOCK) for side, most in zip(fitting(source, size), padded(size), strict=True))
    return height, width


def to_source(boxes: NDArray[np.floating[Any]], source: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes `[N, 4]` (x1, y1, x2, y2) in an input by "fit", in pixels of the image of `source` (height, width), cut at its edges."""
    scaled = fitting(source, size)
    across, down = source[1] / scaled[1], source[0] / scaled[0]
    found = np.asarray(boxes, np.float64) * [across, down, across, down]
    return found.clip(0, [source[1], source[0], source[1], source[0]]).astype(np.float32)


def conic(weights: Sequence[Any], across: Any, down: Any) -> Any:
    """The value of a conic of CONIC `weights` at places of a box whose middle is 0 and whose sides are -1 and 1: arrays, of NumPy or of
    torch, that are broadcast against each other."""
    one, x, y, xx, yy, xy = weights
    return one + x * across + y * down + xx * across * across + yy * down * down + xy * across * down
