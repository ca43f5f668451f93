"""What scikit-learn's estimators need of the verbs: training on images at hand, and probabilities and vectors as arrays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.api.embedding import embed, opened
from saccade.api.models import Model, load_model
from saccade.api.predicting import predict
from saccade.api.training import train
from saccade.core import bands, encoding, folders, images
from saccade.core.errors import UserError, one_line
from saccade.core.files import os_error
from saccade.core.progress import automatic
from saccade.data import converting
from saccade.data.annotations import Annotations, Item
from saccade.data.tree import File, HeldTree


def learn(
    content: Sequence[Any],
    labels: Sequence[int],
    classes: Sequence[Any],
    options: Mapping[str, Any],
    run_dir: str | Path | None,
    verbose: bool,
) -> tuple[Model, Path | None]:
    """A model trained on images, each with its place in `classes`, by `train` with `options`; and its run, None where it is not kept.

    content: as `core.images.read` takes it. run_dir: gets a new folder fit-1, fit-2 ... with data/ and run/. Raises UserError as `train`
    does, and for classes that cannot be told apart by name.
    """
    names = [one_line(str(name)) for name in classes]
    if len(set(names)) < len(names) or "" in names:
        raise UserError("classes must have names that differ in more than blanks", where=f"{names}"[:200])
    with tempfile.TemporaryDirectory(prefix="saccade-") as temporary:
        place = Path(temporary) if run_dir is None else _free(folders.make(run_dir))
        _write(content, labels, names, place / "data")
        run = train(
            place / "data", task="classify", out=place / "run", report=run_dir is not None, progress=automatic(not verbose), **options
        )
        model = load_model(run.path, device=options.get("device", "auto"))
    return model, None if run_dir is None else run.path


def _free(folder: Path) -> Path:
    """A new folder fit-N; whoever else makes one at the same time gets another."""
    number = 1
    while True:
        try:
            (folder / f"fit-{number}").mkdir()
            return folder / f"fit-{number}"
        except FileExistsError:
            number += 1
        except OSError as error:
            raise os_error(error, folder, "make the folder") from None


def _write(content: Sequence[Any], labels: Sequence[int], names: Sequence[str], out: Path) -> None:
    """A table of labels and its images: copies of files, bands as TIFF, all else as PNG."""
    held: dict[str, str | bytes] = {}
    items = []
    for number, (one, label) in enumerate(zip(content, labels, strict=True)):
        if isinstance(one, str | os.PathLike):
            path = f"{number:07d}{Path(one).suffix}"
            held[path] = os.fspath(one)
        elif there := images.bands_of(one):
            path = f"{number:07d}.tif"
            held[path] = bands.encoded(images.read(one, channels=there).pixels)
        else:
            path = f"{number:07d}.png"
            held[path] = encoding.png(images.read(one, channels=1 if _is_grey(one) else 3).pixels)
        items.append(Item(File(path, 0, 0), "train", (int(label),)))
    converting.write(Annotations("held", "classify", tuple(names), tuple(items), HeldTree("held", held)), out, "table")


def _is_grey(one: Any) -> bool:
    """Whether a picture, array or tensor has one channel: what is written must say so, as the recipe goes by it."""
    if hasattr(one, "getbands"):
        return len(one.getbands()) == 1 and one.mode != "P"
    shape = getattr(one, "shape", ())
    return len(shape) == 2 or (len(shape) == 3 and shape[0 if hasattr(one, "detach") else 2] == 1)


def probabilities(model: Model, content: Sequence[Any], classes: Sequence[Any]) -> NDArray[np.float32]:
    """float32 `[N, K]`, in the order of `classes`; raises UserError for the first image that cannot be read."""
    found = predict(model, list(content), strict=True, progress=automatic(quiet=True))
    order = [model.card.classes.index(one_line(str(name))) for name in classes]
    return np.stack([one.probabilities for one in found])[:, order]  # type: ignore[union-attr]


def embedder(target: str | Path, options: Mapping[str, Any]) -> Model:
    """The model that `embed` would take, to be used more than once."""
    return opened(target, **options)


def vectors(model: Model, content: Sequence[Any], layer: str | None) -> NDArray[np.float32]:
    """float32 `[N, D]`; raises UserError for the first image that cannot be read."""
    return np.asarray(embed(model, list(content), layer=layer, strict=True, progress=automatic(quiet=True)))
