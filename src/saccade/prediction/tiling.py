"""Images at their own pixels that are too large for one call: answered for in tiles. What is evaluated and what is predicted both come
through here, so that they agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import pixel_classes, tiles
from saccade.core.card import Card
from saccade.core.geometry import padded
from saccade.core.images import Picture
from saccade.core.prepare import prepare
from saccade.core.segmentation import Segmentation
from saccade.prediction.session import Session


def large(card: Card, size: tuple[int, int]) -> bool:
    """Whether an image of (height, width) is answered for in tiles."""
    height, width = padded(size)
    return card.input.resize == "native" and height * width > tiles.WHOLE


def run(session: Session, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """`session.run` of prepared images uint8 `[B, C, H, W]`, in tiles where they are large."""
    size: tuple[int, int] = images.shape[2:]
    if not large(session.card, size):
        return session.run(images)
    whole = np.empty((len(images), len(session.card.classes), *size), np.float32)
    for image, found in zip(images, whole, strict=True):

        def answer(rows: slice, columns: slice, image: NDArray[np.uint8] = image) -> NDArray[np.float32]:
            return _whole_tile(session, image[:, rows, columns])

        for top, band in tiles.bands(answer, size, tiles.TILE, tiles.OVERLAP):
            found[:, top : top + band.shape[1]] = band
    return {"logits": whole}


def segmented(session: Session, picture: Picture, source: str) -> Segmentation:
    """The answer for a large image as it was read, uint8 `[H, W, C]`; beside it no more is held than a row of tiles and the mask."""
    spec = replace(session.card.input, size=(tiles.TILE, tiles.TILE))

    def answer(rows: slice, columns: slice) -> NDArray[np.float32]:
        return _whole_tile(session, prepare(picture.pixels[rows, columns], spec))

    found = tiles.bands(answer, picture.size, tiles.TILE, tiles.OVERLAP)
    return pixel_classes.from_bands(found, session.card, picture.size, source, picture.notes)


def _whole_tile(session: Session, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits `[K, TILE, TILE]` of a tile uint8 `[C, h, w]`, 0 where it reaches beyond the image."""
    logits = np.asarray(session.run(np.ascontiguousarray(pixels[None]))["logits"], np.float32)[0]
    room = [(0, 0), *((0, tiles.TILE - side) for side in logits.shape[1:])]
    return np.pad(logits, room) if any(after for _, after in room) else logits
