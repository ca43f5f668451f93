"""What the masks of a set tell before training: how much there is of each class, and whether half their size still shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.data.opening import open_dataset


def thick() -> NDArray[np.uint8]:
    mask = np.zeros((33, 47), np.uint8)  # odd sides: their last pixels are left out
    mask[8:24, 8:32] = 1
    return mask


def thin() -> NDArray[np.uint8]:
    mask = thick()
    mask[4, :] = 2
    return mask


def written(root: Path, masks: list[NDArray[np.uint8]]) -> Path:
    """A set whose training images have these masks."""
    for split, shown in (("train", masks), ("val", masks[:1])):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for number, mask in enumerate(shown):
            Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(root / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("ground\nblock\nline\n")
    return root


@pytest.mark.parametrize(("mask", "alike"), [(thick(), 1.0), (thin(), 0.0)])
def test_masks_tell_shares_and_what_is_left_at_half_their_size(tmp_path: Path, mask: NDArray[np.uint8], alike: float) -> None:
    schema = open_dataset(written(tmp_path, [mask, mask]), task="segment").looked_at()
    assert schema.shares == pytest.approx(np.bincount(mask.ravel(), minlength=3) / mask.size)
    assert schema.halved == pytest.approx(alike)


def test_half_a_line_of_two_pixels_is_half_alike(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[5:7] = 1  # rows 5 and 6: at half the size one of them, enlarged rows 4 and 5
    assert open_dataset(written(tmp_path, [mask]), task="segment").looked_at().halved == pytest.approx(1 / 3)
