"""What `predict` returns: NumPy fields in the original image's pixel coordinates, validated, to and from JSON."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Classification:
    """The classes of one image, best first.

    labels: int64 [K], class indices by falling score; scores: float32 [K], their probabilities;
    probabilities: float32 [K], in the order of `classes`. `size` is the original image's (height, width).
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    source: str = ""
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = field(default=())

    task = "classify"

    def __post_init__(self) -> None:
        shape = (len(self.classes),)
        if not self.labels.shape == self.scores.shape == self.probabilities.shape == shape:
            raise ValueError(
                f"labels, scores and probabilities must have shape {shape}, got "
                f"{self.labels.shape}, {self.scores.shape}, {self.probabilities.shape}"
            )
        if not (np.isfinite(self.probabilities).all() and np.isfinite(self.scores).all()):
            raise ValueError("scores and probabilities must be finite")

    @property
    def label(self) -> str:
        """The name of the best class."""
        return self.classes[int(self.labels[0])]

    @property
    def score(self) -> float:
        """The probability of the best class."""
        return float(self.scores[0])

    def agreement(self, other: Classification) -> float:
        """How much two answers for one image say the same, 0 to 1: here whether they name the same class."""
        return float(self.label == other.label)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "task": self.task,
            "label": self.label,
            "score": self.score,
            "labels": [self.classes[i] for i in self.labels],
            "scores": [float(s) for s in self.scores],
            "size": list(self.size),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], classes: tuple[str, ...]) -> Classification:
        """The inverse of `to_dict`; raises UserError when the names do not fit `classes` or the figures are none."""
        where = str(raw.get("source", ""))
        index = {name: i for i, name in enumerate(classes)}
        try:
            if len(raw["labels"]) != len(classes) or set(raw["labels"]) != set(classes):
                raise UserError("the labels of this result are not the model's classes", where=where)
            labels = np.array([index[name] for name in raw["labels"]], np.int64)
            scores = np.array(raw["scores"], np.float32)
            if scores.shape != labels.shape:
                raise UserError(f"a result must have a score a class, got {len(raw['scores'])}", where=where)
            probabilities = np.empty_like(scores)
            probabilities[labels] = scores
            height, width = map(int, raw.get("size", (0, 0)))
            return cls(labels, scores, probabilities, classes, where, (height, width), tuple(raw.get("notes", ())))
        except KeyError as error:
            raise UserError(f"a result must have {error}", where=where) from None
        except (TypeError, ValueError) as error:
            raise UserError(f"not a result: {error}", where=where) from None

    def plot(self, top: int = 5) -> Figure:
        """A bar chart of the best `top` classes."""
        from matplotlib.figure import Figure

        count = min(top, len(self.classes))
        figure = Figure(figsize=(4, 0.4 * count + 0.6), layout="constrained")
        axes = figure.add_subplot()
        names = [self.classes[i] for i in self.labels[:count]]
        bars = axes.barh(range(count), self.scores[:count], color="#2a6f97")
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.set_yticks(range(count), names, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON."""
        from saccade.core.files import write_json

        return write_json(Path(path), self.to_dict())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(self.classes[i])}</td><td style='text-align:right'>{s:.3f}</td></tr>"
            for i, s in zip(self.labels[:5], self.scores[:5], strict=True)
        )
        return f"<table><caption>{html.escape(self.source)}</caption>{rows}</table>"


Result = Classification
