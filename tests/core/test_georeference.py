"""Outlines along the edges of pixels, and where the pixels of a GeoTIFF lie: rings that give the piece back, tags, what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from saccade.core import georeference, outlines, regions
from saccade.core.class_masks import Packed
from saccade.core.errors import UserError
from saccade.core.segmentation import Segmentation


def filled(rings: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Middles of pixels that lie within an odd number of rings."""
    found = np.zeros(shape, bool)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, 0), strict=True):
            if x1 == x2:  # sides are upright or level
                low, high = sorted((int(y1), int(y2)))
                found[low:high, int(x1) :] ^= True
    return found


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_rings_give_a_piece_back(mask: np.ndarray) -> None:
    labels, count = ndimage.label(mask)
    for number in range(1, count + 1):
        piece = labels == number
        rings = outlines.rings(piece)
        np.testing.assert_array_equal(filled(rings, mask.shape), piece)
        assert outlines.area(rings[0]) > 0 and all(outlines.area(ring) < 0 for ring in rings[1:])
        assert sum(map(outlines.area, rings)) / 2 == piece.sum()
        _, many = ndimage.label(np.pad(~piece, 1, constant_values=True))
        assert len(rings) == many
        for ring in rings:
            assert len(np.unique(ring, axis=0)) == len(ring), "a ring meets itself"


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
def test_regions_are_those_of_scipy(mask: np.ndarray) -> None:
    found = regions.pieces(Packed.of(mask), (0,))
    place = 0
    for label in (1, 2):
        labels, _ = ndimage.label(mask == label)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[box] == number
            region, patch = found.regions[place], found.patch(place)
            np.testing.assert_array_equal(patch.pixels, piece)
            assert region.label == label and region.area == piece.sum()
            assert region.box == (box[1].start, box[0].start, box[1].stop, box[0].stop) == (patch.left, patch.top, *region.box[2:])
            around = np.pad(piece, 1)
            assert region.perimeter == (around[1:] != around[:-1]).sum() + (around[:, 1:] != around[:, :-1]).sum()
            rows, columns = np.nonzero(piece)
            assert region.centroid == pytest.approx((columns.mean() + box[1].start + 0.5, rows.mean() + box[0].start + 0.5))
            place += 1
    assert place == len(found.regions)


SCALE = (33550, 12, 3, (0.5, 0.25, 0.0), True)
TIE = (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True)
MATRIX = (34264, 12, 16, (0.0, 2.0, 0.0, 10.0, 3.0, 0.0, 0.0, 20.0, *[0.0] * 8), True)


def keys(*rows: tuple[int, int]) -> tuple[Any, ...]:
    values = (1, 1, 0, len(rows), *[value for key, said in rows for value in (key, 0, 1, said)])
    return 34735, 3, len(values), values, True


def written(*tags: tuple[Any, ...], big: bool = False) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 6), np.uint8), extratags=list(tags), bigtiff=big, tile=(16, 16))
    return file.getvalue()


def test_scale_and_tie_point() -> None:
    for big in (False, True):
        found = georeference.read(written(SCALE, TIE, keys((1024, 1), (3072, 32633)), big=big))
        assert found.epsg == 32633 and found.matrix == (0.5, 0, 500000, 0, -0.25, 4600000)
        np.testing.assert_allclose(found.place(np.array([[2.0, 4.0]])), [[500001, 4599999]])


def test_matrix_points_and_degrees() -> None:
    found = georeference.read(written(MATRIX, keys((1025, 2), (2048, 4326))))
    assert found.epsg == 4326 and found.matrix == (0, 2, 9, 3, 0, 18.5)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ((), "no tag says where"),
        ((SCALE, keys((3072, 32633))), "no tag says where"),
        ((SCALE, TIE), "EPSG"),
        ((SCALE, TIE, keys((3072, 32767))), "EPSG"),
        (((33550, 12, 3, (0.0, 0.25, 0.0), True), TIE, keys((3072, 32633))), "no tag says where"),
        (((33550, 12, 3, (float("nan"), 0.25, 0.0), True), TIE, keys((3072, 32633))), "no tag says where"),
        ((SCALE, TIE, keys((3072, 32633)), (274, 3, 1, 6, True)), "turned by its orientation"),
    ],
)
def test_what_is_refused(tags: Sequence[tuple[Any, ...]], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(written(*tags))
    with pytest.raises(UserError, match=reason) as error:
        georeference.read(path)
    assert error.value.where == str(path)


def test_no_tiff() -> None:
    from saccade.core import encoding

    with pytest.raises(UserError, match="PNG, not a TIFF"):
        georeference.read(encoding.png(np.zeros((2, 2), np.uint8)))
    with pytest.raises(UserError, match="pixels alone"):
        georeference.read(np.zeros((2, 2), np.uint8))


def test_features() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[1:4, 1:4] = 1
    mask[2, 2] = 0
    answer = Segmentation(Packed.of(mask), ("background", "field"), "x.tif")
    found = georeference.features(answer, georeference.Georeference((2.0, 0.0, 100.0, 0.0, -2.0, 50.0), 32633))
    assert json.loads(json.dumps(found)) == found and found["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    (feature,) = found["features"]
    outer, hole = feature["geometry"]["coordinates"]
    assert feature["properties"] == {"class": "field", "area": 8, "perimeter": 16}
    assert outer[0] == outer[-1] and sorted(map(tuple, outer[1:])) == [(102, 42), (102, 48), (108, 42), (108, 48)]
    assert outlines.area(np.array(outer[1:])) == 2 * 36 and outlines.area(np.array(hole[1:])) == -2 * 4
