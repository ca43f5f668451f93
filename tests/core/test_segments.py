"""What queries answer, merged into segments: by hand, as the library does it, at the pixels of images of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.eomt.image_processing_eomt import EomtImageProcessor
from transformers.models.eomt.modeling_eomt import EomtForUniversalSegmentationOutput

from saccade.core import finish, segments
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import fitting
from saccade.core.panoptic import Panoptic

CLASSES = ("cat", "dog", "grass")


def card(size: tuple[int, int] = (32, 32), resize: str = "fit") -> Card:
    return Card("panoptic", CLASSES, {}, InputSpec(3, size, resize), stuff=(2,))


def merged(classes: Any, masks: Any, size: tuple[int, int] = (32, 32), made: Card | None = None) -> Panoptic:
    outputs = {"classes": np.array(classes, np.float32)[None], "masks": np.array(masks, np.float32)[None]}
    (found,) = finish.results(outputs, made or card(), [size], ["x.png"])
    assert isinstance(found, Panoptic)
    return found


def block(rows: slice, columns: slice, height: float = 9.0) -> np.ndarray[Any, Any]:
    found = np.full((8, 8), -9.0)
    found[rows, columns] = height
    return found


ALL = slice(None)
LEFT, RIGHT = slice(0, 4), slice(4, 8)


def test_by_hand() -> None:
    """Two cats side by side, grass by two queries below them, and what is not sure enough tells nothing."""
    above, below = slice(0, 4), slice(4, 8)
    classes = [[0.9, 0, 0, 0.1], [0.8, 0, 0, 0.2], [0, 0, 0.7, 0.3], [0, 0, 0.6, 0.4], [0, 0.45, 0, 0.4], [0, 0, 0, 1]]
    masks = [block(above, LEFT), block(above, RIGHT), block(below, LEFT), block(below, RIGHT), block(ALL, ALL), block(ALL, ALL)]
    found = merged(classes, masks)
    assert [(one.id, one.label, one.thing) for one in found.segments] == [(1, 0, True), (2, 0, True), (3, 2, False)]
    assert [round(one.score, 2) for one in found.segments] == [0.9, 0.8, 0.7]
    whole = found.map
    assert (whole[:14, :14] == 1).all() and (whole[:14, 18:] == 2).all() and (whole[18:, :14] == 3).all() and (whole[18:, 18:] == 3).all()
    assert found.summary == "2 cat, 1 grass" and found.source == "x.png"


def test_what_keeps_too_little_of_its_mask_is_left_out() -> None:
    """A dog whose mask is mostly a surer cat's; what it took stays void."""
    found = merged([[0.9, 0, 0, 0.1], [0, 0.8, 0, 0.2]], [block(ALL, slice(0, 6)), block(ALL, slice(2, 8))])
    assert [one.label for one in found.segments] == [0] and (found.map[:, 28:] == 0).all()


def test_nothing_at_all() -> None:
    for classes, masks in (([[0, 0, 0, 1.0]], [block(ALL, ALL)]), ([[1.0, 0, 0, 0]], [block(ALL, ALL, -9.0)])):
        found = merged(classes, masks)
        assert found.segments == () and not found.map.any() and found.summary == "nothing"


@pytest.mark.parametrize("seed", range(3))
def test_as_the_library_merges(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    points = torch.rand(9, 2, 1, 1, generator=rng)  # each query's mask is about its own
    places = (torch.arange(16) + 0.5) / 16
    far = ((places[:, None] - points[:, 0]) ** 2 + (places - points[:, 1]) ** 2).sqrt()
    nearest_other = torch.stack([far[[other for other in range(9) if other != one]].amin(0) for one in range(9)])
    masks = (30 * (nearest_other - far) + 2 * torch.randn(9, 16, 16, generator=rng) + 1)[None]
    logits = 4 * torch.randn(1, 9, 4, generator=rng)
    given = EomtForUniversalSegmentationOutput(class_queries_logits=logits, masks_queries_logits=masks)
    size = {"shortest_edge": 64, "longest_edge": 64}
    (theirs,) = EomtImageProcessor().post_process_panoptic_segmentation(
        given, [(64, 64)], threshold=0.5, overlap_mask_area_threshold=0.8, stuff_classes=[2], size=size
    )
    ours = merged(logits.softmax(2)[0].numpy(), masks[0].numpy(), (64, 64), card((64, 64)))
    wanted = theirs["segmentation"].numpy()
    rows = {row["id"]: row["label_id"] for row in theirs["segments_info"]}
    assert len(rows) >= 2 and sorted(rows.values()) == sorted(one.label for one in ours.segments)
    for one in ours.segments:
        (their_id,) = np.unique(wanted[ours.map == one.id][np.isin(wanted[ours.map == one.id], list(rows))]).tolist()[:1]
        assert rows[their_id] == one.label
        assert ((wanted == their_id) ^ (ours.map == one.id)).mean() < 0.002, "but for the last bits of an interpolation"


@pytest.mark.parametrize("size", [(17, 11), (1, 1), (90, 41), (64, 90)], ids=str)
def test_in_the_originals_pixels_band_by_band(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The halves of an image are the halves of its pixels, however it was fitted, and however few rows are held at once."""
    made = card((64, 64))
    _, width = fitting(size, (64, 64))
    cells = np.full((16, 16), -9.0, np.float32)
    cells[:, : round(width / 8)] = 9.0
    classes = [[1.0, 0, 0, 0], [0, 1.0, 0, 0]]
    whole = merged(classes, [cells, -cells], size, made)
    assert whole.size == size and len(whole.segments) == (2 if size[1] > 1 else 1)
    edge = round(4 * round(width / 8) * size[1] / width)
    assert size[1] == 1 or (set(whole.map[:, : edge - 1].ravel()) <= {1} and set(whole.map[:, edge + 1 :].ravel()) <= {2})
    monkeypatch.setattr(segments, "ROOM", 50)
    again = merged(classes, [cells, -cells], size, made)
    np.testing.assert_array_equal(again.map, whole.map)


def test_outputs_that_are_none() -> None:
    good = {"classes": np.full((1, 2, 4), 0.25, np.float32), "masks": np.zeros((1, 2, 8, 8), np.float32)}
    for name, value, words in (
        ("classes", good["classes"][..., :3], r"must give classes \[1, Q, 4\]"),
        ("masks", good["masks"][:, :1], "must give classes"),
        ("masks", good["masks"][:, :, :7], "8x8 cells at least, got 7x8"),
        ("masks", good["masks"] * np.nan, "must be finite"),
    ):
        with pytest.raises(UserError, match=words):
            finish.results({**good, name: value}, card(), [(32, 32)], ["x"])
    with pytest.raises(UserError, match="must give 'masks'"):
        finish.results({"classes": good["classes"]}, card(), [(32, 32)], ["x"])


# Things as objects, and the class of each pixel beside them

KINDS = ("cat", "dog", "grass", "sky")


def found_in(side: int = 32) -> Card:
    return Card("panoptic", KINDS, {}, InputSpec(3, (side, side), "fit"), stuff=(2, 3))


def told(things: list[tuple[list[float], float, int]], pixels: Any) -> dict[str, Any]:
    """Boxes x1, y1, x2, y2 of the input that are covered whole, each with its score and class, and logits `[K, h, w]`."""
    boxes, scores, labels = zip(*(things or [([0.0, 0, 1, 1], 0.0, 0)]), strict=True)
    given = {"boxes": [boxes], "scores": [scores], "labels": [labels], "grids": np.ones((1, len(boxes), 4, 4)), "pixels": pixels[None]}
    return {name: np.array(value, np.float32) for name, value in given.items()}


def filled(things: list[tuple[list[float], float, int]], pixels: Any, size: tuple[int, int] = (32, 32), side: int = 32) -> Panoptic:
    (found,) = finish.results(told(things, pixels), found_in(side), [size], ["x.png"], [("a remark",)], complete=True)
    assert isinstance(found, Panoptic)
    return found


def below(side: int = 8) -> np.ndarray[Any, Any]:
    """Sky above grass, of as many cells."""
    pixels = np.zeros((4, side, side), np.float32)
    pixels[3, : side // 2], pixels[2, side // 2 :] = 4.0, 4.0
    return pixels


def test_things_by_hand_and_what_lies_below() -> None:
    """A surer cat leaves next to nothing of a dog; what was found of grass as an object, and of a cat too unsure, is nothing; where a thing
    is likeliest but none was found the pixels are void."""
    pixels = below()
    pixels[0, 6:, 6:] = 9.0
    things = [
        ([0.0, 0, 32, 32], 0.95, 2),
        ([4, 4, 12, 12], 0.9, 0),
        ([4, 4, 12, 13], 0.8, 1),
        ([20, 4, 28, 12], 0.7, 1),
        ([9, 20, 19, 30], 0.1, 0),
    ]
    found = filled(things, pixels)
    assert [(one.id, one.label, one.thing) for one in found.segments] == [(1, 0, True), (2, 1, True), (3, 2, False), (4, 3, False)]
    assert [one.score for one in found.segments] == pytest.approx([0.9, 0.7, 0.9, 0.93], abs=0.05)
    whole = found.map
    assert (whole[4:12, 4:12] == 1).all() and (whole[4:12, 20:28] == 2).all() and (whole == 1).sum() == (whole == 2).sum() == 64
    assert (whole[17:, :22] == 3).all() and (whole[:4] == 4).all() and (whole[27:, 27:] == 0).all()
    assert (found.source, found.notes) == ("x.png", ("a remark",))


def test_the_surer_of_two_things_has_what_both_cover() -> None:
    for first, second in ((0.9, 0.8), (0.8, 0.9)):
        found = filled([([4, 4, 16, 12], first, 0), ([12, 4, 24, 12], second, 1)], below())
        scores = {one.id: one.score for one in found.segments}
        assert scores[int(found.map[8, 14])] == pytest.approx(0.9) and scores[int(found.map[8, 6])] == pytest.approx(first)


def test_a_stuff_of_less_than_a_hundredth_is_left_out() -> None:
    pixels = np.zeros((4, 16, 16), np.float32)
    pixels[2] = 4.0
    pixels[3, 8, 8] = 9.0
    found = filled([], pixels, (64, 64), 64)
    assert [one.label for one in found.segments] == [2] and 0 < (found.map == 0).sum() < 41
    assert filled([], np.zeros((4, 8, 8), np.float32)).segments == (), "a cat is likeliest, if only by its place, and none was found"


@pytest.mark.parametrize("size", [(17, 11), (1, 1), (90, 41), (64, 90)], ids=str)
def test_things_and_stuff_band_by_band(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = fitting(size, (64, 64))
    pixels = np.zeros((4, 16, 16), np.float32)
    pixels[3, :, : round(width / 8)], pixels[2, :, round(width / 8) :] = 9.0, 9.0
    things = [([0.0, 0, width / 2, height / 2], 0.9, 1)]
    whole = filled(things, pixels, size, 64)
    assert whole.size == size and (whole.map == 1).sum() == pytest.approx(size[0] * size[1] / 4, abs=max(1, sum(size) / 2))
    assert size[1] == 1 or (whole.map[-1, 0], whole.map[-1, -1]) == (3, 2), "numbers of stuff follow those of the classes"
    monkeypatch.setattr(segments, "ROOM", 50)
    np.testing.assert_array_equal(filled(things, pixels, size, 64).map, whole.map)


def test_things_and_pixels_that_are_none() -> None:
    good = told([([4, 4, 12, 12], 0.9, 0)], below())
    for name, value, words in (
        ("pixels", good["pixels"][:, :3], r"must give pixels \[1, 4, h, w\], got \[1, 3, 8, 8\]"),
        ("pixels", good["pixels"][:, :, :7], "pixels of 8x8 cells at least, got 7x8"),
        ("pixels", good["pixels"] * np.nan, "pixels must be finite"),
        ("boxes", good["boxes"] * np.nan, "boxes and scores must be finite"),
        ("grids", good["grids"][:, :, :3], "finite grids"),
    ):
        with pytest.raises(UserError, match=words):
            finish.results({**good, name: value}, found_in(), [(32, 32)], ["x"])
    for name in ("boxes", "scores"):
        with pytest.raises(UserError, match=f"must give '{name}'"):
            finish.results({key: value for key, value in good.items() if key != name}, found_in(), [(32, 32)], ["x"])
