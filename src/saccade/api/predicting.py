"""`predict`: what a model says of any images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.api import labelling
from saccade.api.models import Predictor, load
from saccade.core import encoding, files, folders, georeference, strips
from saccade.core.errors import UserError, unknown
from saccade.core.georeference import Georeference
from saccade.core.images import MAX_PIXELS
from saccade.core.layers import Layers
from saccade.core.progress import Progress, automatic
from saccade.core.results import Result
from saccade.core.segmentation import MASKS, Segmentation
from saccade.data.writing import check_new
from saccade.prediction import flips, pipeline, tiling
from saccade.prediction.pipeline import Failed
from saccade.prediction.predictions import Lines, Predictions
from saccade.prediction.session import BATCH, Session, cores
from saccade.prediction.sources import count, expand
from saccade.tasks import answering

SHOWN = {"png": "pictures of answers", **dict.fromkeys(labelling.FORMATS, "labels")}  # formats that hold the images too
PLACED = "geojson"
FORMATS = ("json", "jsonl", "csv", PLACED, *SHOWN)


def predict(
    target: str | Path | Predictor,
    inputs: Any,
    *,
    out: str | Path | None = None,
    format: str = "json",
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    tta: bool = False,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Predictions:
    """Answer for paths, folders, globs, bytes, PIL images, arrays or tensors, one or a list, of any sizes.

    `target`: a run, a model file, an exported file, or what `load` gave. Bad images stand in `.failed`; raises UserError when none could
    be read, or for the first bad one with `strict`. `tta`: of pixels the mean over mirrored views (`prediction.flips`). `out`: a folder
    that gets predictions.<format>, or with "png" each image with its answer drawn over it, with "geojson" the outlines of regions in the
    coordinates of each GeoTIFF, or becomes a labelled set of what was found ("coco", "yolo", "voc", "masks"; new or empty, it opens as any
    other); masks of classes stand in classes/ beside predictions, how unsure they are in uncertainty/. For more images than memory should
    hold the results of: `predict_each`.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, where="--format")
    if format in (*SHOWN, PLACED):
        if out is None:
            raise UserError(f"{SHOWN.get(format, 'outlines of answers')} need a folder", where=f"--format {format}", fix="give --out DIR")
        if format in labelling.FORMATS:
            check_new(Path(out))
        inputs = [source.content for source in expand(inputs)]  # once: what is written may come to lie among the images
    places = [georeference.read(content) for content in inputs] if format == PLACED else []
    model = load(target, device=device) if isinstance(target, str | Path) else target
    if format in labelling.FORMATS:
        labelling.check(model.card, format)
    if format == PLACED and model.card.task != "segment":
        raise UserError(f"holds regions of pixels, this model is for {model.card.task}", where="--format geojson", fix="--format json")
    begin = time.perf_counter()
    lines = out if format == "jsonl" else None
    each: Iterator[Result | Failed] = predict_each(
        model, inputs, out=lines, strict=strict, max_pixels=max_pixels, tta=tta, device=device, precision=precision, progress=progress
    )
    if out is not None and format in ("json", "csv"):
        each = _with_masks(each, Path(out))
    answers = list(each)
    results = tuple(one for one in answers if not isinstance(one, Failed))
    failed = tuple(one.to_dict() for one in answers if isinstance(one, Failed))
    found = Predictions(results, failed, time.perf_counter() - begin)
    if out is not None and format == "png":
        _draw(model, inputs, answers, folders.make(out), max_pixels)
    elif out is not None and format == PLACED:
        _outline(places, answers, folders.make(out))
    elif out is not None and format in labelling.FORMATS:
        pairs: list[Any] = [(content, one) for content, one in zip(inputs, answers, strict=True) if not isinstance(one, Failed)]
        for line in labelling.write(pairs, model.card, Path(out), format, max_pixels):
            (progress or automatic()).message(line)
    elif out is not None and format != "jsonl":
        found.save(folders.make(out) / f"predictions.{format}", format)
    return found


def _with_masks(answers: Iterator[Result | Failed], folder: Path) -> Iterator[Result | Failed]:
    """Answers, those of classes of pixels with their masks written: classes/000000-NAME.png ..., in the order of the inputs, and how unsure
    each pixel is, as a grey picture: uncertainty/000000-NAME.png. Of classes that overlap a folder, classes/000000-NAME/CLASS.png."""
    for number, answer in enumerate(answers):
        if isinstance(answer, Segmentation):
            name = f"{number:06d}-{folders.stem(answer.source)}"
            place = folders.make(folder / MASKS) / (name if isinstance(answer, Layers) else f"{name}.png")
            answer = replace(answer, file=str(answer.save(place)))
            if answer.doubt is not None:
                files.write_bytes(folders.make(folder / "uncertainty") / f"{name}.png", encoding.png_of(answer.doubt.bands(), answer.size))
        yield answer


def _draw(model: Predictor, inputs: Sequence[Any], answers: Sequence[Result | Failed], folder: Path, max_pixels: int) -> None:
    """Each image that was answered for, read once more, with its answer: 000000-NAME.png ..., in the order of the inputs."""
    task, channels = answering(model.card.task, "predict"), min(model.card.input.channels, 3)
    for number, (content, answer) in enumerate(zip(inputs, answers, strict=True)):
        if not isinstance(answer, Failed):
            step = answer.packed.step if isinstance(answer, Segmentation) else 1
            pixels = strips.thinned(content, step, channels=channels, max_pixels=max_pixels)
            picture = np.asarray(task.draw(pixels, answer))
            files.write_bytes(folder / f"{number:06d}-{folders.stem(answer.source)}.png", encoding.png(picture))


def _outline(places: Sequence[Georeference], answers: Sequence[Result | Failed], folder: Path) -> None:
    """The regions of each image that was answered for on the map: 000000-NAME.geojson ..., in the order of the inputs."""
    for number, (place, answer) in enumerate(zip(places, answers, strict=True)):
        if isinstance(answer, Segmentation):
            files.write_json(folder / f"{number:06d}-{folders.stem(answer.source)}.geojson", georeference.features(answer, place))


def predict_each(
    target: str | Path | Predictor,
    inputs: Any,
    *,
    out: str | Path | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    tta: bool = False,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Iterator[Result | Failed]:
    """The same, one by one as they come and in order, bad images among them as `Failed`: for folders of any size.

    `out`: a folder whose predictions.jsonl grows with the results (predictions.jsonl.partial until it is whole). Raises as `predict` does,
    before the first answer where the request is at fault.
    """
    model = load(target, device=device) if isinstance(target, str | Path) else target
    total = count(inputs)
    if tta:
        flips.check(model.card)
    answers = answered(lambda streams: session(model, precision, streams, tta=tta), inputs, max_pixels=max_pixels)
    lines = Lines(folders.make(out) / "predictions.jsonl") if out is not None else None
    if out is not None:
        answers = _with_masks(answers, Path(out))
    return _written(watched(answers, strict, "predicting", total, progress or automatic()), lines)


def session(model: Predictor, precision: str, streams: int = 1, *, tta: bool) -> Session:
    """What answers for a model, of mirrored views too where that is asked."""
    found = model.session(precision, streams=streams)
    return flips.Flipped(found) if tta else found


def answered(
    open_session: Callable[[int], Session], inputs: Any, *, max_pixels: int, finish: pipeline.Finish = tiling.results
) -> Iterator[Any]:
    """What a session says of any inputs, in order, bad ones among them as `Failed`. open_session(streams): it, for so many calls at once.

    Raises UserError at once where there are no images.
    """
    sources = expand(inputs)
    first = list(itertools.islice(sources, BATCH + 1))
    if not first:
        raise UserError("no images were given, or the folders hold none", fix="give files, folders or globs of images")
    # One call on all cores answers a few images soonest; many images are answered fastest by as many calls as there are cores.
    opened = open_session(cores() if len(first) > BATCH else 1)
    return pipeline.stream(opened, itertools.chain(first, sources), finish=finish, max_pixels=max_pixels)


def watched(answers: Iterator[Any], strict: bool, doing: str, total: int | None, progress: Progress) -> Iterator[Any]:
    """Passes the answers on: shown and, where the request asks for it, refused."""
    progress.start(doing, total, "images")
    try:
        for answer in _refused(answers, strict):
            yield answer
            progress.advance()
    finally:
        progress.finish()


def _written(answers: Iterator[Result | Failed], lines: Lines | None) -> Iterator[Result | Failed]:
    """Passes the answers on, written as lines."""
    with lines or nullcontext() as file:
        for answer in answers:
            if file is not None and not isinstance(answer, Failed):
                file.write(answer)
            yield answer


def _refused(answers: Iterator[Any], strict: bool) -> Iterator[Any]:
    """The answers; raises UserError at the first bad image where `strict`, at the end where there was no good one."""
    first, good, bad = Failed("", ""), 0, 0
    for answer in answers:
        if isinstance(answer, Failed):
            first, bad = first if bad else answer, bad + 1
            if strict:
                break
        else:
            good += 1
        yield answer
    if bad and (strict or not good):
        more = f" (and {bad - 1} more)" if bad > 1 else ""
        raise UserError(f"{first.reason}{more}", where=first.source, fix="without --strict the rest goes on" if strict else "")
