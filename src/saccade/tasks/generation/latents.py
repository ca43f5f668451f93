"""Latents as NumPy arrays: drawn by key, kept near the middle, joined by arcs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys

Floats = NDArray[np.float32]


def draw(seed: int, count: int, size: int, first: int = 0) -> Floats:
    """Standard normal numbers `[count, size]`; row i is a function of (seed, first + i) alone (law 1)."""
    return normals(seed, "latents", np.arange(first, first + count), (size,))


def normals(seed: int, purpose: str, positions: NDArray[np.int64], shape: tuple[int, ...]) -> Floats:
    """Standard normal numbers `[N, *shape]`, those of each position keyed by it."""
    keyed = keys.Keyed(seed, purpose)
    rows = [keyed.at(int(position)).standard_normal(shape, np.float32) for position in positions]
    return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)


def uniforms(seed: int, purpose: str, positions: NDArray[np.int64], shape: tuple[int, ...]) -> Floats:
    """Numbers of [0, 1) `[N, *shape]`, those of each position keyed by it."""
    keyed = keys.Keyed(seed, purpose)
    rows = [keyed.at(int(position)).random(shape, np.float32) for position in positions]
    return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)


def labels(seed: int, count: int, frequencies: NDArray[np.float64], first: int = 0) -> NDArray[np.int64]:
    """Classes int64 `[count]`, drawn by their frequencies `[K]`, each keyed by its place."""
    at = uniforms(seed, "labels", np.arange(first, first + count), ())
    return np.minimum(np.searchsorted(np.cumsum(frequencies), at, side="right"), len(frequencies) - 1).astype(np.int64)


def truncate(latents: NDArray[Any], most: float) -> Floats:
    """Normal numbers as those of a normal distribution cut off at +-`most` (Brock et al. 2019, "the truncation trick"), in the same order.

    By the distribution functions rather than by drawing again, so that each stays a function of its key. The limit that "1" stands for
    elsewhere, no truncation, is left to the caller.
    """
    from scipy.special import ndtr, ndtri  # here: its import would cost every mistyped command a quarter of a second

    least = ndtr(-most)
    inside = ndtri(least + ndtr(np.asarray(latents, np.float64)) * (1 - 2 * least))
    return np.clip(inside, -most, most).astype(np.float32)


def slerp(a: NDArray[Any], b: NDArray[Any], count: int) -> Floats:
    """`count` points `[count, L]` from `a` to `b` `[L]` along an arc, ends included, their lengths between those of both (White 2016,
    "Sampling generative networks", section 2.1): a straight line would pass through lengths that normal numbers do not have."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    share = np.linspace(0, 1, count)[:, None]
    cosine = float(np.clip(a @ b / max(lengths[0] * lengths[1], 1e-12), -1, 1))
    angle = np.arccos(cosine)
    if min(lengths) < 1e-12 or angle < 1e-6 or np.pi - angle < 1e-6:  # no arc is the shortest one, or none is needed
        return ((1 - share) * a + share * b).astype(np.float32)
    on_sphere = (np.sin((1 - share) * angle) * a / lengths[0] + np.sin(share * angle) * b / lengths[1]) / np.sin(angle)
    return (on_sphere * ((1 - share) * lengths[0] + share * lengths[1])).astype(np.float32)
