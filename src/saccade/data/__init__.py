"""Data sets: the verbs of data, and the readers behind `train DATA`. Imports nothing until it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.core.progress import Progress

__all__ = ["make"]


def make(
    kind: str,
    *,
    out: str | Path,
    task: str = "classify",
    n: int = 600,
    size: tuple[int, int] = (64, 64),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a data set of known truth into the folder `out`: `n` images of `size` (height, width), the same for a seed.

    `kind` is "shapes". Returns what was written, as JSON values. Raises UserError for an unknown kind, a bad number,
    or a folder that cannot be written.
    """
    from saccade.core.errors import unknown

    if kind != "shapes":
        raise unknown("kind of data", kind, ["shapes"], where="data make")
    from saccade.data.builtin import make_shapes

    return make_shapes(Path(out), task=task, n=n, size=size, seed=seed, progress=progress)
