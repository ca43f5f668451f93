"""The class of each pixel: from logits to the original's pixels, what a result says, its regions, files and JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.core import finish, geometry, masks, run_lengths
from saccade.core.card import Card, InputSpec
from saccade.core.class_masks import Packed, resized
from saccade.core.errors import UserError
from saccade.core.prepare import prepare
from saccade.core.segmentation import Segmentation

CLASSES = ("background", "cat", "dog")


def card(resize: str = "native", size: tuple[int, int] = (64, 64)) -> Card:
    return Card("segment", CLASSES, {}, InputSpec(3, size, resize))


def answered(mask: np.ndarray, resize: str, size: tuple[int, int] = (64, 64), *, complete: bool = False) -> Segmentation:
    """What a model says that knows the class of each pixel of a picture that shows the mask."""
    grey = (mask * 100).astype(np.uint8)
    prepared = prepare(np.repeat(grey[:, :, None], 3, 2), InputSpec(3, size, resize))[0].astype(np.float32)
    logits = -np.abs(prepared[None] - np.array([0, 100, 200], np.float32)[:, None, None]) / 20
    (found,) = finish.results({"logits": logits[None]}, card(resize, size), [mask.shape], ["x.png"], complete=complete)
    assert isinstance(found, Segmentation)
    return found


@given(st.integers(1, 90), st.integers(1, 90))
def test_native_pixels_come_back_exactly(height: int, width: int) -> None:
    mask = np.random.default_rng(height * 91 + width).integers(0, 3, (height, width), dtype=np.uint8)
    found = answered(mask, "native")
    assert found.size == (height, width)
    np.testing.assert_array_equal(found.mask, mask)


@pytest.mark.parametrize("shape", [(17, 11), (64, 64), (200, 90), (31, 257), (1, 1), (640, 3)])
def test_fitted_images_come_back_at_their_own_size(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2, shape[1] // 3 :] = 1
    found = answered(mask, "fit")
    assert found.mask.shape == shape
    assert (found.mask == mask).mean() > 0.9 or min(shape) < 4


def test_flipped_images_give_flipped_answers() -> None:
    mask = np.random.default_rng(0).integers(0, 3, (8, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(answered(mask[:, ::-1], "native").mask, answered(mask, "native").mask[:, ::-1])
    np.testing.assert_array_equal(answered(np.rot90(mask), "native").mask, np.rot90(answered(mask, "native").mask))


def test_bands_of_rows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(1).integers(0, 3, (9, 7), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    whole = answered(mask, "fit")
    monkeypatch.setattr("saccade.core.pixel_classes.ROOM", 3 * 140 * 7)
    parts = answered(mask, "fit")
    assert (whole.mask == parts.mask).mean() > 0.999
    assert np.abs(whole.uncertainty - parts.uncertainty).max() < 0.02  # type: ignore[operator]


def test_uncertainty() -> None:
    logits = np.zeros((1, 3, 32, 32), np.float32)
    logits[0, 1, :16] = 50
    (found,) = finish.results({"logits": logits}, card(), [(32, 32)], ["x"])
    assert isinstance(found, Segmentation) and found.uncertainty is not None
    assert found.uncertainty[:16].max() == 0 and found.uncertainty[16:].min() == 1
    (silent,) = finish.results({"logits": logits}, card(), [(32, 32)], ["x"], complete=True)
    assert isinstance(silent, Segmentation) and silent.uncertainty is None


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (np.zeros((1, 2, 32, 32)), "must give logits .*, got"),
        (np.zeros((1, 3, 16, 32)), "at least, got 16x32"),
        (np.full((1, 3, 32, 32), np.nan), "logits must be finite"),
        (np.zeros((3, 32, 32)), "must give logits"),
    ],
)
def test_outputs_that_are_none(logits: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        finish.results({"logits": logits}, card(), [(32, 32)], ["x"])
    with pytest.raises(UserError, match="must give 'logits'"):
        finish.results({"boxes": logits}, card(), [(32, 32)], ["x"])


def scene() -> Segmentation:
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 3:9] = 1
    mask[5, 8] = 1  # joined by a side
    mask[6, 9] = 1  # joined by a corner only
    mask[8:12, 15:20] = 2
    return Segmentation(Packed.of(mask), CLASSES, "x.png")


def test_regions() -> None:
    first, second, third = scene().regions()
    assert (first.label, first.area, first.box, first.perimeter) == (1, 19, (3, 2, 9, 6), 20)
    assert (second.label, second.area, second.box, second.centroid, second.perimeter) == (1, 1, (9, 6, 10, 7), (9.5, 6.5), 4)
    assert (third.label, third.area, third.centroid, third.perimeter) == (2, 20, (17.5, 10.0), 18)
    assert len(scene().regions(least=2)) == 2
    assert Segmentation(Packed.of(np.zeros((3, 3), np.uint8)), CLASSES).regions() == []


def test_instances() -> None:
    result = scene()
    found = result.to_instances()
    assert found.names == ["cat", "cat", "dog"]
    together = np.zeros(result.size, np.uint8)
    for place, label in enumerate(found.labels.tolist()):
        together[run_lengths.to_mask(found.masks[place])] = label
    np.testing.assert_array_equal(together, result.mask)


def test_a_piece_within_the_box_of_another() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[:, 0] = mask[8] = 1
    mask[2:4, 4:6] = 1
    found = Segmentation(Packed.of(mask), CLASSES).to_instances()
    assert [int(found.mask(place).sum()) for place in range(2)] == [17, 4]


def test_what_it_says() -> None:
    result = scene()
    assert result.labels.tolist() == [1, 2, 0]  # the background stands last
    assert result.summary == "cat 8.3 %, dog 8.3 %"
    assert result.shares["dog"] == pytest.approx(20 / 240) and sum(result.shares.values()) == pytest.approx(1)
    assert Segmentation(Packed.of(np.zeros((3, 3), np.uint8)), CLASSES).summary == "nothing but background"
    other = result.mask.copy()
    other[0, :12] = 2
    assert result.agreement(Segmentation(Packed.of(other), CLASSES)) == pytest.approx(0.95)
    assert "cat" in result._repr_html_()
    assert result.plot().axes


def test_files(tmp_path: Path) -> None:
    result = scene()
    path = result.save(tmp_path / "mask.png")
    with Image.open(path) as image:
        assert image.mode == "P"
    np.testing.assert_array_equal(masks.read(path), result.mask)
    raw = result.to_dict() | {"mask": str(path)}
    again = Segmentation.from_dict(raw, CLASSES)
    np.testing.assert_array_equal(again.mask, result.mask)
    assert result.to_dict()["mask"] is None
    with pytest.raises(UserError, match="must name the file of its mask"):
        Segmentation.from_dict(result.to_dict(), CLASSES)
    with pytest.raises(UserError, match="class indices of 0 to 1, was 0 to 2"):
        Segmentation.from_dict(raw, CLASSES[:2])


@given(st.integers(1, 40), st.integers(1, 40))
def test_packed(height: int, width: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    packed = Packed.of(np.asfortranarray(values))
    assert packed.size == (height, width)
    np.testing.assert_array_equal(packed.values, values)
    np.testing.assert_array_equal(resized(values.repeat(3, 0).repeat(2, 1), (height, width)), values)


def test_geometry_of_native_inputs() -> None:
    assert geometry.scaled((500, 300), (64, 64), "native") == (500, 300)
    assert geometry.whole((100, 64), "native") == (128, 64) and geometry.whole((100, 64), "crop") == (100, 64)
    assert prepare(np.zeros((17, 33, 3), np.uint8), InputSpec(3, (8, 8), "native")).shape == (3, 32, 64)
