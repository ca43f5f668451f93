"""Data sets: the verbs of data, and the readers behind `train DATA`. Imports nothing until it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saccade.core.progress import Progress
    from saccade.data.doctor.doubts import Predictor

__all__ = ["check", "convert", "make", "split", "stats", "view"]


def make(
    kind: str,
    *,
    out: str | Path,
    task: str = "classify",
    n: int = 600,
    size: tuple[int, int] = (64, 64),
    format: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a data set of known truth into the folder `out`: `n` images of `size` (height, width), the same for a seed.

    `kind` is "shapes"; `task` is classify, detect, segment or instances, `format` one that holds such sets. Returns what was written, as
    JSON values. Raises UserError for an unknown kind, a bad number, or a folder that cannot be written.
    """
    from saccade.core.errors import unknown

    if kind != "shapes":
        raise unknown("kind of data", kind, ["shapes"], where="data make")
    from saccade.data.builtin import make_shapes

    return make_shapes(Path(out), task=task, n=n, size=size, seed=seed, format=format, progress=progress)


def convert(
    source: str | Path, out: str | Path, *, to: str, task: str | None = None, format: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the set `source` in the format `to` into the new folder `out`; see `saccade.data.converting.convert`."""
    from saccade.data import converting

    return converting.convert(source, out, to=to, task=task, format=format, progress=progress)


def split(
    data: str | Path,
    *,
    out: str | Path,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    by: str = "class",
    pattern: str | None = None,
    seed: int = 0,
    task: str | None = None,
    format: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Share out the images of a set anew and write the list of files `out`, which stands for the set from then on; nothing is moved.

    shares: of train, val and test. by: "class" (each split its share of every class), "chance", "group" and "time" (by what `pattern`
    catches in the paths) or "likeness" (images that are nearly the same stay together). `out` must end in `.splits.json`.
    Returns `{"path", "splits"}`, the last with images by split. Raises UserError.
    """
    from saccade.core.progress import Silent
    from saccade.data import doctor, splitting
    from saccade.data.opening import open_annotations

    place = splitting.check_out(Path(out))
    annotations = open_annotations(data, task=task, format=format)
    alike = doctor.alike(annotations, progress or Silent()) if by == "likeness" else ()
    found = splitting.split(annotations, shares, by=by, pattern=pattern, seed=seed, alike=alike)
    return {"path": str(splitting.write(place, annotations, found)), "splits": {name: len(paths) for name, paths in found.items()}}


def view(
    data: str | Path, *, out: str | Path, task: str | None = None, format: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write a contact sheet of a set, `out/index.html`, with labels, boxes and masks drawn. Returns `{"page", "images", "pages"}`."""
    from saccade.core.progress import Silent
    from saccade.data import viewing
    from saccade.data.opening import open_annotations

    return viewing.view(open_annotations(data, task=task, format=format), Path(out), progress=progress or Silent())


def stats(
    data: str | Path, *, out: str | Path | None = None, task: str | None = None, format: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a set: sizes, aspect ratios, channel means, classes and objects; `out`: a folder for a page of plots. Raises UserError."""
    from saccade.core.progress import Silent
    from saccade.data import statistics
    from saccade.data.opening import open_annotations

    return statistics.measure(open_annotations(data, task=task, format=format), None if out is None else Path(out), progress or Silent())


def check(
    data: str | Path,
    *,
    out: str | Path | None = None,
    fix: str | Path | None = None,
    run: Predictor | None = None,
    task: str | None = None,
    format: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Look for all that is wrong with a set, at every label and every image.

    out: an HTML file for a page of the findings. fix: a new folder for a repaired copy in the same format. run: a trained classifier
    (`saccade.load_run(RUN)`, `saccade.load(FILE)`), and labels that it confidently contradicts are found too; what it has learned from it
    seldom contradicts, so train it on other images. Returns `{"findings", "counts", "errors", "warnings", "images", "format", "task"}`,
    with `"page"` where it was asked for, and `"fixed": {"path", "repaired", "errors_left"}`: findings repaired by code, and errors that
    nothing repairs. Raises UserError.
    """
    from saccade.core.progress import Silent
    from saccade.data import checking
    from saccade.data.opening import open_annotations

    annotations = open_annotations(data, task=task, format=format)
    return checking.check(annotations, None if out is None else Path(out), None if fix is None else Path(fix), run, progress or Silent())
