"""Where an image lies in the model's input, in whole pixels and exact integer arithmetic.

The geometry, in whole pixels, is that of torchvision's evaluation presets (Resize, CenterCrop), to which published weights were
measured: an image H x W is scaled by max(h / H, w / W), so that it covers h x w. The side that decides becomes exactly h or w, the other
is rounded down, and the middle h x w of that is kept; half of an odd remainder is rounded to the even number.
"""

from __future__ import annotations


def covering(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) to which an image of `source` (height, width) is scaled so that it covers `size`; exact integer arithmetic."""
    (height, width), (h, w) = source, size
    if h * width >= w * height:
        return h, width * h // height
    return height * w // width, w


def margin(scaled: int, kept: int) -> int:
    """Pixels cut off at the top or left, where `kept` of `scaled` remain."""
    return round((scaled - kept) / 2)
