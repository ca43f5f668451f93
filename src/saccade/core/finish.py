"""The array half of decoding: the named arrays that a session gives, as results. NumPy, once for all who predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.results import Classification, Result

Array = NDArray[Any]

SLACK = 1e-2  # how far 16-bit rounding may carry a probability, or a row's sum, beyond 1


def results(
    outputs: Mapping[str, Any],
    card: Card,
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]] | None = None,
) -> list[Result]:
    """One result for each image of a batch, in its order.

    outputs: what the room's `decode` gives, as anything `np.asarray` takes; for "classify" that is "probabilities", float32
    `[B, K]`. sizes: (height, width) of the original images; sources: what each is called; notes: remarks on each.
    Raises UserError where the outputs are not those of the card (its file is at fault), ValueError where the lists differ in length.
    """
    if card.task != "classify":
        raise UserError(f"the task must be 'classify', the model's card says {card.task!r}", fix="a newer saccade may know it")
    if "probabilities" not in outputs:
        raise UserError(f"the model must give 'probabilities', it gives {', '.join(map(repr, outputs)) or 'nothing'}")
    return list(classifications(outputs["probabilities"], card.classes, sizes, sources, notes))


def classifications(
    probabilities: Any,
    classes: tuple[str, ...],
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]] | None = None,
) -> list[Classification]:
    """Classifications of float32 `[B, K]`; labels by falling score, ties by class index. Errors as in `results`."""
    notes = [()] * len(sources) if notes is None else notes
    if not len(sizes) == len(sources) == len(notes):
        raise ValueError(f"sizes, sources and notes must be equally many, got {len(sizes)}, {len(sources)} and {len(notes)}")
    rows = _checked(probabilities, classes, sources)
    labels = np.argsort(-rows, axis=1, kind="stable")
    scores = np.take_along_axis(rows, labels, axis=1)
    return [
        Classification(labels[i], scores[i], rows[i], classes, source, size, tuple(remarks))
        for i, (source, size, remarks) in enumerate(zip(sources, sizes, notes, strict=True))
    ]


def _checked(probabilities: Any, classes: tuple[str, ...], sources: Sequence[str]) -> NDArray[np.float32]:
    try:
        rows = np.asarray(probabilities, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's probabilities must be numbers: {error}") from None
    shape = (len(sources), len(classes))
    if rows.shape != shape or not classes:
        raise UserError(
            f"the model must give probabilities of shape {shape} (images, classes of its card), got {rows.shape}",
            fix="the weights and the card of this file do not belong together",
        )
    # A NaN fails both comparisons.
    bad = ~((rows >= 0) & (rows <= 1 + SLACK)).all(axis=1) | (rows.sum(axis=1) > 1 + SLACK)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        finite = bool(np.isfinite(rows[first]).all())
        got = f"{rows[first].min():.3g} to {rows[first].max():.3g}, sum {rows[first].sum():.3g}" if finite else "NaN or infinity"
        raise UserError(
            f"probabilities must be finite, from 0 to 1 and sum to 1, got {got} for {int(bad.sum())} of {len(rows)} images",
            where=sources[first],
            fix="the outputs may lack their softmax" if finite else "try --precision fp32; if that gives the same, the weights are broken",
        )
    return rows
