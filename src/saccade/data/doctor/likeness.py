"""Which images show the same: exactly, by their pixels, or nearly, by a hash of their coarse look; and which look like no other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from saccade.core import images
from saccade.core.errors import UserError
from saccade.data.annotations import Annotations
from saccade.data.doctor.flat import Flags, Floats, Integers, neighbours
from saccade.data.doctor.look import CELLS, Look, Pixels

BITS = 5  # of 64 that may differ
STEPS = 32  # images beside it, among those of the same part of the hash, that one is compared with
PART = 4096  # pairs whose colours are compared at a time
APART = 5.0  # of 255 that coarse colours may differ, root mean square, brightness and contrast aside
RELATED = 0.99  # correlation of coarse colours
BRIGHTER, STRONGER = 30.0, 1.25  # of 255 that mean colours may differ; ratio of contrasts
FLAT = 2.0  # of 255: a deviation of coarse colours below which a picture has no shape that tells it from others
NEAREST, SAMPLE, FEWEST = 5, 2000, 50
FAR, SPREADS = 2.0, 6.0  # medians of the distance; median deviations (as of a normal distribution) beyond it


def exact(annotations: Annotations, looks: Sequence[Look]) -> list[list[int]]:
    """Groups of images, by their indices, whose pixels are the same; blank ones are left out."""
    by_digest: dict[bytes, list[int]] = {}
    for index, look in enumerate(looks):
        if look.pixels and not look.pixels.blank:
            by_digest.setdefault(look.pixels.digest, []).append(index)
    return [same for group in by_digest.values() if len(group) > 1 for same in _truly_the_same(annotations, looks, group)]


def _truly_the_same(annotations: Annotations, looks: Sequence[Look], group: list[int]) -> list[list[int]]:
    """JPEGs were compared at a reduced size: those that agree there are compared in full."""
    found: dict[tuple[tuple[int, ...], bytes], list[int]] = {}
    for index in group:
        try:
            source = annotations.tree.image(annotations.items[index].path)
            pixels = images.read(source, channels=images.bands_of(source) or 3).pixels
        except UserError:  # gone since
            continue
        found.setdefault((pixels.shape, pixels.tobytes()), []).append(index)
    return [same for same in found.values() if len(same) > 1]


def near(looks: Sequence[Look], same: Sequence[Sequence[int]]) -> list[list[int]]:
    """Groups of images that nearly show the same, each with those that are exactly so (`same`); every group holds two that differ. Bands
    are left out.

    Pairs are sought among images that agree in one of BITS + 1 parts of their hash: by the pigeonhole principle no pair is missed that
    differs in BITS bits at most, but for parts that more than STEPS images share.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    twins = {index: group[0] for group in same for index in group}
    shown = [(index, look.pixels) for index, look in enumerate(looks) if look.pixels and not (look.pixels.blank or look.bands)]
    shown = [(index, pixels) for index, pixels in shown if twins.get(index, index) == index]
    pairs = _pairs([pixels for _, pixels in shown])
    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(shown), len(shown)))
    _, component = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for place in np.unique(pairs).tolist():
        groups.setdefault(int(component[place]), []).append(shown[place][0])
    others = {group[0]: group for group in same}
    return [sorted(index for one in group for index in others.get(one, [one])) for group in groups.values()]


def _pairs(shown: Sequence[Pixels]) -> Integers:
    """Pairs that look nearly the same: int64 `[P, 2]`."""
    hashes = np.array([pixels.likeness for pixels in shown], np.uint64)
    cells = np.array([pixels.cells for pixels in shown], np.uint8).reshape(len(shown), CELLS * CELLS, 3)
    found = np.zeros(0, np.int64)
    n = len(shown)
    edges = np.linspace(0, 64, BITS + 2).astype(int).tolist()
    for start, end in pairwise(edges):
        part = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        close_ones = [found]
        for i, j in neighbours(part, hashes, np.full(len(hashes), np.iinfo(np.uint64).max), STEPS):
            close = np.bitwise_count(hashes[i] ^ hashes[j]) <= BITS
            close_ones.append(np.minimum(i[close], j[close]) * n + np.maximum(i[close], j[close]))
        found = np.unique(np.concatenate(close_ones))
    pairs = np.stack([found // max(n, 1), found % max(n, 1)], axis=1)
    kept = [_alike(cells[part[:, 0]], cells[part[:, 1]]) for part in np.array_split(pairs, len(pairs) // PART + 1)]
    return pairs[np.concatenate(kept)]


def _alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Flags:
    """Whether coarse colours `[P, C, 3]` are those of the same picture, perhaps a little brighter: the hash alone knows no colours."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    a, b = a - mean_a, b - mean_b
    spread_a, spread_b = np.sqrt((a**2).mean((1, 2))), np.sqrt((b**2).mean((1, 2)))
    low, high = np.minimum(spread_a, spread_b), np.maximum(spread_a, spread_b)
    related = (a * b).mean((1, 2)) / np.maximum(low * high, 1e-6)
    apart = low * np.sqrt(np.maximum(1 - related**2, 0))
    close = (np.abs(mean_a - mean_b).max((1, 2)) <= BRIGHTER) & (high <= STRONGER * low)
    found: Flags = (related >= RELATED) & (low >= FLAT) & (apart <= APART) & close
    return found


def unlike(looks: Sequence[Look]) -> list[int]:
    """Images far from all others of as many channels in their coarse colours, the farthest first: at most one in a hundred of these, none
    of fewer than FEWEST.

    Far: the mean distance to the NEAREST nearest of SAMPLE images is FAR times its median over all, and SPREADS deviations beyond it.
    """
    shown: dict[int, list[tuple[int, NDArray[np.uint8]]]] = {}
    for index, look in enumerate(looks):
        if look.pixels and not look.pixels.blank:
            shown.setdefault(look.bands, []).append((index, look.pixels.cells))
    return [index for among in shown.values() if len(among) >= FEWEST for index in _far(among)]


def _far(shown: Sequence[tuple[int, NDArray[np.uint8]]]) -> list[int]:
    """`unlike` among images of as many channels, each its index and its cells."""
    cells = np.array([cells for _, cells in shown], np.float64).reshape(len(shown), -1)
    sample = cells[np.unique(np.linspace(0, len(cells) - 1, SAMPLE).astype(int))]
    distance = np.concatenate([_to_nearest(cells[start : start + 1000], sample) for start in range(0, len(cells), 1000)])
    middle = float(np.median(distance))
    spread = 1.4826 * float(np.median(np.abs(distance - middle)))
    far = np.flatnonzero(distance > max(FAR * middle, middle + SPREADS * spread))
    most = max(1, len(shown) // 100)
    return [shown[place][0] for place in far[np.argsort(-distance[far])][:most].tolist()]


def _to_nearest(cells: Floats, sample: Floats) -> Floats:
    """Mean distance of each row to the nearest rows of the sample, one of distance 0 (itself) left out."""
    squares = (cells**2).sum(1)[:, None] + (sample**2).sum(1)[None] - 2 * cells @ sample.T
    nearest = np.sort(np.sqrt(np.maximum(squares, 0)), axis=1)[:, : NEAREST + 1]
    found: Floats = nearest[:, 1:].mean(1)
    return found
