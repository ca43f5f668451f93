"""How far a figure could lie from the truth: percentile bootstrap over images (Efron and Tibshirani 1993, chapter 13)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys
from saccade.task import Metric


def resample(n: int, seed: int, number: int) -> NDArray[np.int64]:
    """How often each of `n` images is drawn in resample `number`: int64 [n], sum n; keyed, so that two models can share it."""
    if n == 0:
        return np.zeros(0, np.int64)
    drawn = keys.generator(seed, "bootstrap", number).integers(0, n, n)
    return np.bincount(drawn, minlength=n)


def bootstrap(metric: Metric, n: int, *, seed: int = 0, resamples: int = 1000, level: float = 0.95) -> dict[str, tuple[float, float]]:
    """(low, high) of each figure that `metric` knows of its `n` images. resamples: at most, fewer where
    the metric says so.

    A figure that is None has no interval; nor has any below two images, where nothing shows the spread. A resample in
    which a figure is undefined does not count for it. Figures at their limit (no mistake at all) have no width: the
    bootstrap cannot see what no image shows.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be at least 1 and level between 0 and 1, got {resamples} and {level}")
    names = [name for name, value in metric.compute().items() if value is not None]
    if n < 2 or not names:
        return {}
    drawn = [metric.compute(resample(n, seed, number)) for number in range(min(resamples, metric.resamples))]
    tails = ((1 - level) / 2, (1 + level) / 2)
    intervals = {}
    for name in names:
        values = [value for figures in drawn if (value := figures[name]) is not None]
        if values:
            low, high = np.quantile(values, tails)
            intervals[name] = (float(low), float(high))
    return intervals
