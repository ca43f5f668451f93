"""Figures of models that make images: distances between sets of features, and likelihoods. NumPy only.

The name of the features is part of a figure's name (`fid_classifier`), so that figures on different ones are never compared by mistake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.tasks.generation import distances

Floats = NDArray[np.float64]
INCEPTION = "inception"  # the features that published figures are of
REPEATS = 100  # of the bootstrap
WIDE, FEWER = 1024, 40  # features from which each repeat takes seconds, and how many are taken then
NEIGHBOURS = 10_000  # rows of either side that nearest neighbours are looked for among
COLLAPSED = 0.02  # share of the real features' variance below which made images are all alike
WORSE = 8.0  # times the best distance so far that mean divergence
SURE = 0.999  # share of pairs that a judge tells apart when nothing can be learned from it any more


def name_of(features: str) -> str:
    """What features are called in figures' names: a file's or run's name without folder and suffix, a model's without its tag."""
    return PurePath(features).stem.partition(".")[0]


class GenerationMetric:
    """The metric of the room. `update` takes features of made images `[D]` each, and of real ones; there may be more of one than of the
    other. `update_taken` takes what a model with an encoder says of real images.

    `compute` gives, as far as there is what they need: fid_F, kid_F (times 1,000 it is what papers print), precision_F, recall_F,
    density_F, coverage_F, spread_F (variance of the made features by that of the real ones) for the features F;
    bits_per_dim (an upper bound, lower is better), bits_per_dim_weighted (the importance-weighted one), elbo (nats an image); psnr, ssim
    and perceptual_F (0 is equal, 4 most different) of reconstructions, with lpips_N where asked for; told_apart: share of pairs of a
    held-out and a made image that the judge orders rightly.
    """

    def __init__(self, features: str, *, likely: bool) -> None:
        self.features, self.likely = features, likely
        self.primary = "bits_per_dim" if likely else f"fid_{features}"
        self.higher_is_better = False
        self.resamples = 1000
        self._made: list[NDArray[Any]] = []
        self._real: list[NDArray[Any]] = []
        self._taken: list[Mapping[str, Floats]] = []
        self._told_apart: float | None = None

    def update(self, results: Sequence[Any], truths: Sequence[Any]) -> None:
        """Features of made images (results) and of real ones (truths), `[D]` each."""
        self._made += [np.asarray(row, np.float64) for row in results]
        self._real += [np.asarray(row, np.float64) for row in truths]

    def row(self, result: Any, truth: Any) -> dict[str, Any]:
        """Nothing: no image is answered for."""
        return {}

    def update_taken(
        self,
        images: NDArray[np.uint8],
        nats: Floats,
        reconstructions: NDArray[np.uint8],
        *,
        weighted: Floats | None = None,
        apart: Mapping[str, Floats] | None = None,
    ) -> None:
        """Images and their reconstructions uint8 `[B, H, W, C]`; bounds of log p, `[B]` each; apart: how different both look, `[B]` by the
        name of each figure."""
        dimensions = np.full(len(images), float(np.prod(images.shape[1:])))
        rows = {"bits_per_dim": -nats / (dimensions * math.log(2))}
        if weighted is not None:
            rows["bits_per_dim_weighted"] = -weighted / (dimensions * math.log(2))
        rows |= {**(apart or {}), "elbo": nats}
        rows |= {"psnr": distances.psnr(images, reconstructions), "ssim": distances.ssim(images, reconstructions)}
        self._taken.append({name: np.asarray(value, np.float64) for name, value in rows.items()})

    def update_judge(self, real: Floats, made: Floats) -> None:
        """The judge's scores of real and of made images: the chance that a real one's is higher, ties counted half."""
        both = np.searchsorted(np.sort(made), real, side="left") + np.searchsorted(np.sort(made), real, side="right")
        self._told_apart = float(both.mean() / 2 / len(made))

    def compute(self, weights: NDArray[Any] | None = None) -> dict[str, float | None]:
        """The figures; integer `weights` repeat rows of likelihoods and reconstructions (distances are of whole sets)."""
        figures: dict[str, float | None] = {}
        if self._taken:
            figures |= self._likelihoods(weights)
        if len(self._made) > 1 and len(self._real) > 1:
            figures |= self._distances()
        if self._told_apart is not None:
            figures["told_apart"] = self._told_apart
        return figures or {self.primary: None}

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % intervals: of the Fréchet distance by the bootstrap over both sets, of likelihoods and reconstructions by their spread."""
        found = {}
        if len(self._made) > 1 and len(self._real) > 1:
            real, made = np.stack(self._real), np.stack(self._made)
            repeats = REPEATS if real.shape[1] < WIDE else min(REPEATS, FEWER)
            low, high = distances.intervals(real, made, seed=seed, repeats=repeats)
            found[f"fid_{self.features}"] = (low, high)
        for name, values in self._columns().items():
            values = values[np.isfinite(values)]
            if len(values) > 1:
                half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
                found[name] = (float(values.mean()) - half, float(values.mean()) + half)
        return found

    def per_class(self) -> list[dict[str, Any]]:
        """None: figures are of whole sets."""
        return []

    def details(self) -> dict[str, Any]:
        """How many images were compared, on which features."""
        return {"features": self.features, "made": len(self._made), "real": len(self._real)}

    def _columns(self) -> dict[str, Floats]:
        """Likelihoods and reconstructions by image, `[N]` each, by the name of their figure."""
        if not self._taken:
            return {}
        return {name: np.concatenate([part[name] for part in self._taken]) for name in self._taken[0]}

    def _likelihoods(self, weights: NDArray[Any] | None) -> dict[str, float | None]:
        columns = self._columns()
        weight = np.ones(len(columns["elbo"])) if weights is None else np.asarray(weights, np.float64)
        total = float(weight.sum())
        finite = {name: np.where(np.isfinite(values), values, 100.0) for name, values in columns.items()}  # psnr of an exact copy
        return {name: float(weight @ values) / total if total else None for name, values in finite.items()}

    def _distances(self) -> dict[str, float | None]:
        made, real, name = np.stack(self._made), np.stack(self._real), self.features
        figures: dict[str, float | None] = {f"fid_{name}": distances.frechet(real, made)}
        figures[f"kid_{name}"] = distances.kernel(real, made, subsets=20)[0]
        near_real, near_made = real[:NEIGHBOURS], made[:NEIGHBOURS]
        if min(len(near_real), len(near_made)) > 5:
            figures[f"precision_{name}"], figures[f"recall_{name}"] = distances.precision_recall(near_real, near_made)
            figures[f"density_{name}"], figures[f"coverage_{name}"] = distances.density_coverage(near_real, near_made)
        figures[f"spread_{name}"] = float(made.var(0).sum() / max(real.var(0).sum(), 1e-12))
        return figures


def fault(metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
    """Why these figures, beside the best so far, mean that training has failed; "" where it has not."""
    spread = next(((name, value) for name, value in metrics.items() if name.startswith("spread_")), None)
    distance = next(((name, value) for name, value in metrics.items() if name.startswith("fid_")), None)
    before = best.get(distance[0]) if distance else None
    if spread and spread[1] is not None and spread[1] < COLLAPSED and (best.get(spread[0]) or 0.0) > 5 * COLLAPSED:
        # Images that never differed are those of a model that has not learned yet.
        return f"collapsed: the made images differ by {100 * spread[1]:.1f} % of what real ones do"
    if not (distance and distance[1] and before):
        return ""
    times = distance[1] / before
    told = metrics.get("told_apart")
    if told is not None and told > SURE and times > WORSE / 2:
        return f"the judge tells all made images apart, and {distance[0]} has become {times:.1f} times the best"
    return f"diverged: {distance[0]} has become {times:.1f} times the best" if times > WORSE else ""
