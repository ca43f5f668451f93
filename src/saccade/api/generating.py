"""`generate`: images from a trained model; reconstructions, ways from one image to another, the nearest training images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.api.displaying import shown
from saccade.core import encoding, files, folders
from saccade.core.errors import UserError, unknown
from saccade.core.progress import Progress, automatic
from saccade.core.results import Generated
from saccade.core.rundir import RunDir
from saccade.task import Making
from saccade.tasks import making

if TYPE_CHECKING:
    from saccade.api.models import Model

Array = NDArray[Any]
MOST = 100_000  # images of one request
CHUNK = 512
FRAME = 60  # milliseconds of a moving picture's frame
NEIGHBOURS = 3


@dataclass(frozen=True)
class Request:
    """What `generate` was asked for, checked."""

    n: int
    seed: int
    truncation: float
    interpolate: int
    labels: Array | None


def generate(
    target: str | Path | Model,
    *,
    n: int = 16,
    seed: int = 0,
    class_name: str | None = None,
    truncation: float = 1.0,
    interpolate: int = 0,
    from_image: Any = None,
    latents: Array | None = None,
    nearest: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Generated:
    """Make images with a run's best model or a model file.

    Image i is a function of the model and (seed, i) alone, or of row i of `latents` [N, L]. class_name: of which class (a model
    trained by class draws classes as often as they were seen without it). truncation, from above 0 to 1: lower for likelier and less
    different images. interpolate: that many steps from each image to the next, along arcs. from_image: any one image, for models with an
    encoder: its reconstruction first, then draws around it, and notes that say how likely the model finds it. nearest: beside each
    the nearest training images, and how far they are (runs only). out: a folder for 000000.png ..., grid.png and latents.npy.
    Raises UserError for whatever is wrong with the request.
    """
    from saccade.api.models import Model, load_model

    progress = progress or automatic()
    _check(n, truncation, interpolate)
    if from_image is not None and (interpolate or latents is not None or truncation < 1):
        raise UserError("variations of an image take no latents, truncation or interpolation", where="--from", fix="leave those out")
    model = target if isinstance(target, Model) else load_model(target, device=device)
    task = making(model.card.task)
    if out is not None:
        _check_free(Path(out))
    rows = None if latents is None else _rows(latents, task.latent(model.module), 2 if interpolate else 1)
    request = Request(n, seed, truncation, interpolate, _labels(task, model, class_name, n if rows is None else len(rows), seed))
    taken = from_image is not None
    found = _from_image(task, model, from_image, request) if taken else _made(task, model, request, rows, progress)
    run = RunDir(Path(target)) if not isinstance(target, Model) and Path(target).is_dir() else None
    pictures = {"grid.png": _sheet(found, interpolate)}
    if nearest:
        sheet, notes = _nearest(run, found, model.device, progress)
        pictures["nearest.png"] = sheet
        found = replace(found, notes={**found.notes, **notes})
    if out is None:
        return replace(found, images=shown(found.images))
    return _write(folders.make(out), found, pictures, interpolate)


def _check(n: int, truncation: float, interpolate: int) -> None:
    if not 1 <= n <= MOST:
        raise UserError(f"must be from 1 to {MOST:,} images, got {n}", where="--n")
    if not 0 < truncation <= 1:
        raise UserError(f"must be above 0 and at most 1, got {truncation:g}", where="--truncation", fix="1 leaves latents as they are")
    if interpolate and not 2 <= interpolate <= 1000:
        raise UserError(f"must be 2 to 1,000 steps, got {interpolate}", where="--interpolate")
    if interpolate and n < 2:
        raise UserError("interpolation leads from one image to the next and needs two or more", where="--n", fix="--n 2")


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("is not an empty folder", where=str(folder), fix="give another --out")


def _rows(latents: Any, size: int, least: int) -> Array:
    """Latents that a user gave, float32 `[N, size]`."""
    try:
        rows = np.asarray(latents, np.float32)
    except (TypeError, ValueError):
        raise UserError(f"must be numbers of shape [N, {size}]", where="latents") from None
    if rows.ndim != 2 or rows.shape[1] != size or len(rows) < least or not np.isfinite(rows).all():
        raise UserError(f"must be finite numbers of shape [N, {size}], N at least {least}, got {list(rows.shape)}", where="latents")
    return rows


def _labels(task: Making, model: Model, name: str | None, count: int, seed: int) -> Array | None:
    from saccade.tasks.generation.latents import labels

    classes, frequencies = model.card.classes, task.frequencies(model.module)
    if not len(frequencies):
        if name is not None:
            raise UserError("this model was not trained by class", where="--class", fix="train it with --set generation.conditional=true")
        return None
    if name is None:
        return labels(seed, count, frequencies)
    if name not in classes:
        raise unknown("class", name, classes, where="--class")
    return np.full(count, classes.index(name), np.int64)


def _made(task: Making, model: Model, request: Request, latents: Array | None, progress: Progress) -> Generated:
    from saccade.tasks.generation import latents as numbers

    size, labels = task.latent(model.module), request.labels
    if latents is None:
        latents = numbers.draw(request.seed, request.n, size)
    if request.interpolate:
        latents = np.concatenate([numbers.slerp(a, b, request.interpolate) for a, b in itertools.pairwise(latents)])
        labels = None if labels is None else np.repeat(labels[:-1], request.interpolate)
    progress.start("generating", len(latents), "images")
    parts = []
    for start in range(0, len(latents), CHUNK):
        part = slice(start, start + CHUNK)
        parts.append(task.sample(model.module, latents[part], None if labels is None else labels[part], request.truncation))
        progress.advance(len(parts[-1]))
    progress.finish()
    return Generated(np.concatenate(parts), latents, labels, model.card.classes, request.seed)


def _from_image(task: Making, model: Model, source: Any, request: Request) -> Generated:
    """The reconstruction of an image, then draws of its posterior; how many bits the model needs for it, and how far it is from it."""
    from saccade.core.prepare import read
    from saccade.tasks.generation import latents as numbers

    if not task.encodes(model.module):
        raise UserError("this model has no encoder to take an image up with", where="--from", fix="train a vae or vqvae: --model vae")
    picture = read(source, model.card.input)
    image, size = picture.pixels[None], task.latent(model.module)
    labels = request.labels
    if labels is not None:
        labels = labels[:1] if len(np.unique(labels)) == 1 else _likeliest(task, model, image)
    mean, deviation = task.encode(model.module, image, labels)
    noise = numbers.normals(request.seed, "posterior", np.arange(request.n), (size,))
    noise[0] = 0
    rows = (mean + deviation * noise).astype(np.float32)
    every = None if labels is None else np.repeat(labels, len(rows))
    made = task.sample(model.module, rows, every)
    taken = task.take(model.module, image, labels, np.zeros((1, 1, size), np.float32))
    difference = image[0].transpose(1, 2, 0).astype(np.float64) - taken.reconstructions[0]
    bits = -float(taken.nats[0]) / (image[0].size * np.log(2))
    notes = {"source": picture.source, "bits_per_dim": bits, "anomaly": bits, "difference": float(np.abs(difference).mean())}
    return Generated(made, rows, every, model.card.classes, request.seed, notes=notes)


def _likeliest(task: Making, model: Model, image: Array) -> Array:
    """The class under which the model finds an image likeliest."""
    classes = len(task.frequencies(model.module))
    noise = np.zeros((1, classes, task.latent(model.module)), np.float32)
    nats = task.take(model.module, np.repeat(image, classes, 0), np.arange(classes), noise).nats
    return np.array([int(np.argmax(nats))], np.int64)


def _sheet(found: Generated, interpolate: int) -> Array:
    from saccade.tasks.generation.drawing import grid

    columns = interpolate if interpolate and interpolate <= 64 else None
    return grid(found.images[: max(400, (columns or 0) * 16)], columns)


def _nearest(run: RunDir | None, found: Generated, device: str, progress: Progress) -> tuple[Array, dict[str, Any]]:
    """A sheet of made images with their nearest training images beside them, and the distances."""
    from saccade.api.displaying import nearest_places
    from saccade.api.evaluating import RunImages
    from saccade.tasks.generation.drawing import beside

    if run is None or not run.run_file.is_file():
        raise UserError("a model file does not know its training images", where="--nearest", fix="give the run")
    known = RunImages.of(run, progress)
    train = known.split("train")
    on, images = known.features(train, device), found.images[:64]
    places, distances = nearest_places(on, images, train, NEIGHBOURS)
    columns = [np.stack([train.store[int(i)] for i in column]) for column in places.T]
    rows = [
        {"nearest": [train.names[int(i)] for i in row], "distances": [float(d) for d in away]}
        for row, away in zip(places, distances, strict=True)
    ]
    return beside([images, *columns]), {"features": on.name, "neighbours": rows}


def _write(folder: Path, found: Generated, pictures: dict[str, Array], interpolate: int) -> Generated:
    whole = replace(found, images=shown(found.images))
    whole.save(folder)
    for name, picture in pictures.items():
        files.write_bytes(folder / name, encoding.png(shown(picture)))
    written = {
        "images": [str(folder / f"{number:06d}.png") for number in range(len(found))],
        "latents": str(folder / "latents.npy"),
        "grid": str(folder / "grid.png"),
    }
    if "nearest.png" in pictures:
        written["nearest_sheet"] = str(folder / "nearest.png")
    if interpolate:
        written["video"] = str(_video(folder / "interpolation.webp", list(whole.images)))
    return replace(whole, files=written)


def _video(path: Path, frames: Sequence[Array]) -> Path:
    """The way through all images as a moving picture; small ones are enlarged by whole pixels."""
    factor = max(1, 256 // max(frames[0].shape[:2]))
    large = [frame.repeat(factor, 0).repeat(factor, 1) for frame in frames]
    return files.write_bytes(path, encoding.moving(large, FRAME))
