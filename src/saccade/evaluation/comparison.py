"""How much two models differ on the same images, with the uncertainty of the difference."""

from __future__ import annotations

import numpy as np

from saccade.evaluation.intervals import resample
from saccade.task import Metric

RESAMPLES = 1000


def paired(first: Metric, second: Metric, n: int, *, seed: int = 0, level: float = 0.95) -> dict[str, dict[str, float | None]]:
    """{figure: {"value": second - first, "low", "high"}} of two metrics that took up the same `n` images in the same order.

    Paired percentile bootstrap (Efron and Tibshirani 1993, chapter 13): both are computed on the same resamples of the images, so that
    what is hard for both cancels. A figure that either does not have is None; below two images there is no interval.
    """
    before, after = first.compute(), second.compute()
    drawn: dict[str, list[float]] = {name: [] for name in before}
    for number in range(min(RESAMPLES, first.resamples) if n > 1 else 0):
        weights = resample(n, seed, number)
        one, two = first.compute(weights), second.compute(weights)
        for name, values in drawn.items():
            low, high = one[name], two.get(name)
            if low is not None and high is not None:
                values.append(high - low)
    tails = ((1 - level) / 2, (1 + level) / 2)
    rows: dict[str, dict[str, float | None]] = {}
    for name, values in drawn.items():
        start, end = before[name], after.get(name)
        known = start is not None and end is not None
        bounds = np.quantile(values, tails).tolist() if known and values else (None, None)
        rows[name] = {"value": end - start if start is not None and end is not None else None, "low": bounds[0], "high": bounds[1]}
    return rows
