"""Where the pixels of a GeoTIFF lie on the earth (OGC 19-008r4, "OGC GeoTIFF Standard", section 7), and regions of pixels as GeoJSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from saccade.core import images, outlines
from saccade.core.errors import UserError
from saccade.core.segmentation import Segmentation

_SCALE, _TIEPOINT, _MATRIX, _KEYS = 33550, 33922, 34264, 34735  # tags
_GEOGRAPHIC, _PROJECTED, _RASTER = 2048, 3072, 1025  # keys
_POINT = 2  # the value of _RASTER where coordinates are those of pixels' middles
_OWN = 32767  # a system of coordinates that is none of the EPSG's
_FIX = "give a GeoTIFF, or ask for --format coco"


@dataclass(frozen=True)
class Georeference:
    """x = a column + b row + c, y = d column + e row + f, from the corner of the first pixel; epsg: the system of these coordinates."""

    matrix: tuple[float, float, float, float, float, float]
    epsg: int

    def place(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Columns and rows `[N, 2]` as x and y."""
        a, b, c, d, e, f = self.matrix
        return np.column_stack([points @ [a, b] + c, points @ [d, e] + f])


def read(source: Any) -> Georeference:
    """Of a file or its bytes. Raises UserError where there is none: no TIFF, no place, no EPSG code, or turned by its orientation."""
    if not isinstance(source, str | bytes) and not hasattr(source, "__fspath__"):
        raise UserError("must be a georeferenced file, but is pixels alone", where="image", fix=_FIX)
    where = "bytes" if isinstance(source, bytes) else str(source)
    with images.opened(source, images.LARGEST) as (image, _):
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            raise UserError(f"is not georeferenced: it is {image.format}, not a TIFF", where=where, fix=_FIX)
        tags = {tag: image.tag_v2.get(tag) for tag in (_SCALE, _TIEPOINT, _MATRIX, _KEYS, 274)}
    keys = _keys(tags[_KEYS])
    matrix = _matrix(tags[_SCALE], tags[_TIEPOINT], tags[_MATRIX])
    epsg = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
    if matrix is None or not np.isfinite(matrix).all() or matrix[0] * matrix[4] == matrix[1] * matrix[3]:
        raise UserError("is not georeferenced: no tag says where its pixels lie", where=where, fix=_FIX)
    if not epsg or epsg == _OWN:
        raise UserError("is not georeferenced by an EPSG code", where=where, fix="assign one with gdal_edit -a_srs EPSG:N")
    if tags[274] not in (None, 1):
        raise UserError("is turned by its orientation: where its pixels lie is not clear", where=where, fix=_FIX)
    if keys.get(_RASTER) == _POINT:
        a, b, c, d, e, f = matrix
        matrix = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
    return Georeference(matrix, epsg)


def _keys(raw: Any) -> dict[int, int]:
    """Keys whose value stands in the directory itself."""
    rows = raw if isinstance(raw, tuple) else ()
    return {rows[at]: rows[at + 3] for at in range(4, len(rows) - 3, 4) if rows[at + 1] == 0}


def _matrix(scale: Any, tie: Any, matrix: Any) -> tuple[float, float, float, float, float, float] | None:
    if isinstance(matrix, tuple) and len(matrix) == 16:
        a, b, _, c, d, e, _, f = map(float, matrix[:8])
        return a, b, c, d, e, f
    if isinstance(scale, tuple) and isinstance(tie, tuple) and len(scale) >= 2 and len(tie) == 6:
        column, row, _, x, y, _ = map(float, tie)
        across, down = float(scale[0]), -float(scale[1])
        return across, 0.0, x - across * column, 0.0, down, y - down * row
    return None


def features(answer: Segmentation, reference: Georeference) -> dict[str, Any]:
    """The regions of an answer as a GeoJSON FeatureCollection: polygons along the edges of pixels, holes left out, in the file's own
    coordinates, whose system stands as `crs` as in GeoJSON of 2008 (RFC 7946 knows no other than longitude and latitude)."""
    pieces = answer.pieces()
    rows = []
    for number, region in enumerate(pieces.regions):
        patch = pieces.patch(number)
        corner = np.array([patch.left, patch.top])
        rings = [reference.place(ring + corner) for ring in outlines.rings(patch.pixels)]
        properties = {"class": answer.classes[region.label], "area": region.area, "perimeter": region.perimeter}
        rows.append({"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": _oriented(rings)}})
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{reference.epsg}"}}
    return {"type": "FeatureCollection", "name": answer.source, "crs": crs, "features": rows}


def _oriented(rings: Sequence[NDArray[np.float64]]) -> list[list[list[float]]]:
    """The outer ring first and counterclockwise, holes clockwise, each closed (RFC 7946, section 3.1.6)."""
    found = []
    for number, ring in enumerate(rings):
        counterclockwise = outlines.area(ring) > 0
        right = ring if counterclockwise == (number == 0) else ring[::-1]
        found.append(np.concatenate([right, right[:1]]).tolist())
    return found
