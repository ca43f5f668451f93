"""Panoptic quality as a metric of the room. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.panoptic import Panoptic, PanopticQuality, Segment
from saccade.data.sample import Objects

Array = NDArray[Any]
SECONDS = 10.0  # that a bootstrap may take, about: see `resamples`


class PanopticMetric:
    """The metric of the room (`saccade.task.Metric`): the figures of `PanopticQuality`, of all images together."""

    primary = PanopticQuality.primary
    higher_is_better = PanopticQuality.higher_is_better

    def __init__(self, card: Card) -> None:
        self.classes, self.stuff = card.classes, card.stuff
        self._quality = self._fresh()
        self._images = 0

    def _fresh(self) -> PanopticQuality:
        return PanopticQuality(self.classes, [label for label in range(len(self.classes)) if label not in self.stuff])

    @property
    def resamples(self) -> int:
        """1,000 of a bootstrap where that takes seconds, 50 at least."""
        return int(min(1000, max(50, SECONDS / (1e-4 + 1e-8 * self._images * len(self.classes)))))

    def update(self, results: Sequence[Panoptic], truths: Sequence[Objects]) -> None:
        """Take up answers and the segments of each image."""
        self._quality.update(results, [self._true(truth, result.size) for result, truth in zip(results, truths, strict=True)])
        self._images += len(results)

    def _true(self, truth: Objects, size: tuple[int, int]) -> Panoptic:
        rows = enumerate(zip(truth.labels.tolist(), truth.crowd.tolist(), strict=True), 1)
        segments = [Segment(number, label, crowd=crowd, thing=label not in self.stuff) for number, (label, crowd) in rows]
        return Panoptic.drawn(truth.masks, segments, size, self.classes)

    def row(self, result: Panoptic, truth: Objects) -> dict[str, Any]:
        """source, size, segments with the run lengths of each; pq: of this image, over the classes that are in it or were told."""
        alone = self._fresh()
        alone.update([result], [self._true(truth, result.size)])
        said = result.to_dict()
        return {name: said[name] for name in ("source", "size", "segments")} | {"pq": alone.compute()["pq"]}

    def compute(self, weights: Array | None = None) -> dict[str, float | None]:
        """pq, sq, rq, pq_things, pq_stuff; integer `weights` `[N]` count each image that often (None: once)."""
        return self._quality.compute(weights)

    def per_class(self) -> list[dict[str, Any]]:
        """Rows `class kind pq sq rq`, in class order; None where a class is nowhere."""
        kinds = ["stuff" if label in self.stuff else "thing" for label in range(len(self.classes))]
        rows = zip(self._quality.per_class(), kinds, strict=True)
        return [{"class": row.pop("class"), "kind": kind, **row} for row, kind in rows]

    def details(self) -> dict[str, Any]:
        """classes."""
        return {"classes": list(self.classes)}
