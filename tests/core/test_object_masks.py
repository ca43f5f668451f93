"""Masks that are grids over boxes: drawn by their formula, as torchvision pastes them, at any size; an output that is none is one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from torchvision.models.detection.roi_heads import expand_boxes, paste_masks_in_image

from saccade.core import finish, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.results import Instances

CARD = Card("instances", ("ant", "bee"), {"name": "toy"}, InputSpec(3, (64, 64), "fit"))
CELLS = 28


def outputs(boxes: Any, grids: Any) -> dict[str, Any]:
    """Of one image."""
    count = len(boxes)
    return {
        "boxes": np.array(boxes, np.float32).reshape(1, count, 4),
        "scores": np.linspace(0.9, 0.5, count, dtype=np.float32)[None],
        "labels": np.arange(count, dtype=np.float32)[None] % 2,
        "grids": np.array(grids, np.float32)[None],
    }


def run(given: dict[str, Any], size: tuple[int, int] = (64, 64)) -> Instances:
    card = Card("instances", CARD.classes, {**CARD.architecture, "nms": False}, CARD.input)
    (found,) = finish.results(given, card, [size], ["x.png"])
    assert isinstance(found, Instances)
    return found


def random_masks(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes within 64 x 64 pixels, of any fraction and down to one pixel wide, and smooth grids."""
    draws = np.random.default_rng(0)
    middles, sides = draws.uniform(8, 56, (count, 2)), draws.uniform(1, 40, (count, 2))
    boxes = np.concatenate([middles - sides / 2, middles + sides / 2], 1).clip(0, 64).astype(np.float32)
    waves = draws.normal(size=(count, 4, 4)).repeat(7, 1).repeat(7, 2) + 0.3 * draws.normal(size=(count, CELLS, CELLS))
    return boxes, (1 / (1 + np.exp(-3 * waves))).astype(np.float32)


def test_it_is_what_torchvision_pastes() -> None:
    """Pixel for pixel, where a box has the place that torchvision gives it: it grows one by half a cell on each side, moves its edges to
    whole pixels, and counts both of them, as boxes were once told."""
    boxes, grids = random_masks(80)
    scale = (CELLS + 2) / CELLS
    theirs = paste_masks_in_image(torch.from_numpy(grids)[:, None], torch.from_numpy(boxes), (64, 64))[:, 0] >= 0.5
    moved = expand_boxes(torch.from_numpy(boxes), scale).to(torch.int64).double().numpy() + np.array([0, 0, 1, 1])
    middle, half = (moved[:, :2] + moved[:, 2:]) / 2, (moved[:, 2:] - moved[:, :2]) / 2 / scale
    shrunk = np.concatenate([middle - half, middle + half], 1)
    compared = 0
    for box, grid, wanted in zip(shrunk, grids, theirs.numpy(), strict=True):
        found = run(outputs([box], [grid]))
        mask = found.mask(0) if len(found) else np.zeros((64, 64), bool)
        assert np.array_equal(mask, wanted)
        compared += int(wanted.sum())
    assert compared > 8_000


def test_boxes_that_stay_where_they_are_differ_at_edges_alone() -> None:
    """What torchvision moves them by is less than two pixels."""
    boxes, grids = random_masks(60)
    grids[:] = np.hypot(*(np.mgrid[:CELLS, :CELLS] - 13.5)) < 12
    theirs = (paste_masks_in_image(torch.from_numpy(grids)[:, None], torch.from_numpy(boxes), (64, 64))[:, 0] >= 0.5).numpy()
    for box, grid, wanted in zip(boxes, grids, theirs, strict=True):
        found = run(outputs([box], [grid]))
        mask = found.mask(0) if len(found) else np.zeros((64, 64), bool)
        assert not (mask & ~binary_dilation(wanted, iterations=2)).any() and not (binary_erosion(wanted, iterations=2) & ~mask).any()


@pytest.mark.parametrize("size", [(64, 64), (17, 11), (128, 96), (40, 640)])
def test_a_full_grid_fills_its_box_but_for_the_corners(size: tuple[int, int]) -> None:
    """In the original's pixels, whatever its size: from the middles of the outermost cells on it falls to nothing."""
    height, width = (side * 64 / max(size) for side in size)
    box = np.array([0.04, 0.05, 0.6, 0.8]) * [width, height, width, height]
    found = run(outputs([box], np.ones((1, CELLS, CELLS))), size)
    shares = []
    for axis in (1, 0):
        low, high = found.boxes[0, [axis, axis + 2]].astype(np.float64)
        middles = np.arange(size[1 - axis]) + 0.5
        shares.append((np.minimum(middles - low, high - middles) * CELLS / (high - low) + 0.5).clip(0, 1))
    expected = shares[0][:, None] * shares[1] >= 0.5
    assert expected.any() and np.array_equal(found.mask(0), expected)


def test_linear_between_the_middles_of_cells() -> None:
    """One cell of four is covered: the half of the way to the next, to nothing at the edge."""
    found = run(outputs([[8, 8, 40, 40]], [[[1.0, 0], [0, 0]]]))
    down, across = np.mgrid[0:64, 0:64] + 0.5
    shares = np.clip(1 - np.abs(np.stack([down, across]) - 16) / 16, 0, 1).prod(0)
    assert np.array_equal(found.mask(0), shares >= 0.5)


def test_boxes_that_leave_the_image_and_masks_of_nothing() -> None:
    boxes = [[-10.0, -10, 20, 20], [50, 50, 90, 90], [5, 5, 20, 20], [70, 70, 80, 80], [3, 3, 3, 9]]
    grids = np.ones((5, 3, 3))
    grids[2] = 0.2
    found = run(outputs(boxes, grids))
    assert [run_lengths.patch(mask).box for mask in found.masks] == [(0, 0, 20, 20), (50, 50, 64, 64)]
    assert len(run(outputs(np.zeros((0, 4)), np.zeros((0, 28, 28))))) == 0


@pytest.mark.parametrize("shape", [(1, 2, 28), (1, 2, 28, 27), (1, 3, 28, 28), (2, 2, 28, 28), (1, 2, 0, 0)], ids=str)
def test_grids_that_are_none(shape: tuple[int, ...]) -> None:
    given = outputs([[1, 1, 9, 9], [20, 20, 30, 30]], np.ones((2, 28, 28)))
    with pytest.raises(UserError, match=r"must give finite grids \[B, N, S, S\], got"):
        run({**given, "grids": np.ones(shape)})
    given["grids"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="must give finite grids"):
        run(given)


def test_neither_form() -> None:
    given = outputs([[1, 1, 9, 9]], np.ones((1, 28, 28)))
    del given["grids"]
    with pytest.raises(UserError, match="must give 'weights'"):
        run(given)
