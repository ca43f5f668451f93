"""`predict`: what a model says of any images."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.api import labelling
from saccade.api.filming import drawn
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
from saccade.prediction import pipeline, tiling, views
from saccade.prediction.pipeline import Failed
from saccade.prediction.predictions import Lines, Predictions
from saccade.prediction.session import BATCH, Session, cores
from saccade.prediction.sources import Source, count, each_frame, expand, has_video
from saccade.prediction.views import Looks
from saccade.tasks import answering

SHOWN = {"png": "pictures of answers", **dict.fromkeys(labelling.FORMATS, "labels")}  # formats that hold the images too
PLACED = "geojson"
UNCERTAINTY = "uncertainty"
FORMATS = ("json", "jsonl", "csv", PLACED, *SHOWN)


def predict(
    target: str | Path | Predictor,
    inputs: Any,
    *,
    out: str | Path | None = None,
    format: str | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    nms: str | None = None,
    tile: int = 0,
    tta: bool = False,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Predictions:
    """Answer for paths, folders, globs, bytes, PIL images, arrays or tensors, one or a list, of any sizes.

    `target`: a run, a model file, an exported file, or what `load` gave. Bad images stand in `.failed`; raises UserError when none could
    be read, or for the first bad one with `strict`. `out`: a folder that gets predictions.<format>, or with "png" each image with its
    answer drawn over it, with "geojson" the outlines of regions in the coordinates of each GeoTIFF, or becomes a labelled set of what
    was found ("coco", "yolo", "voc", "masks"; new or empty, it opens as any other);
    masks of classes stand in classes/ beside predictions, how unsure they are in uncertainty/.
    Of a video each frame is answered for, and `out` gets predictions.jsonl and, beside it, the video with the answers drawn over it. For
    more images, or longer videos, than memory should hold the results of: `predict_each`.
    Of models that find objects: nms: how doubles are suppressed, "class", "agnostic" (whatever the class), "soft" or "none", in place of
    the model's own way; tile: large images are looked at in tiles of that side in pixels too, so that small objects are seen as large as
    in the image itself; tta: mirrored and at two other sizes too, which takes six times as long (of pixels the mean over mirrored
    views, `prediction.flips`).
    """
    format = format or ("jsonl" if has_video(inputs) else "json")
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, where="--format")
    if format in (*SHOWN, PLACED):
        _check_shown(format, inputs, out)
        inputs = [source.content for source in expand(inputs)]  # once: what is written may come to lie among the images
    places = [georeference.read(content) for content in inputs] if format == PLACED else []
    model = _opened(target, device, nms)
    if format in labelling.FORMATS:
        labelling.check(model.card, format)
    if format == PLACED and model.card.task != "segment":
        raise UserError(f"holds regions of pixels, this model is for {model.card.task}", where="--format geojson", fix="--format json")
    begin = time.perf_counter()
    folder = Path(out) if out is not None and format not in (*SHOWN, PLACED) else None
    lines = format == "jsonl"
    each = _each(
        model, inputs, folder, Looks(tile, tta), lines=lines, strict=strict, max_pixels=max_pixels, precision=precision, progress=progress
    )
    answers = list(each)
    results = tuple(one for one in answers if not isinstance(one, Failed))
    failed = tuple(one.to_dict() for one in answers if isinstance(one, Failed))
    found = Predictions(results, failed, time.perf_counter() - begin)
    if out is not None and format == "png":
        _draw(model, inputs, answers, folders.make(out), max_pixels)
    elif out is not None and format == PLACED:
        _outline(places, answers, folders.make(out))
    elif out is not None and format in labelling.FORMATS:
        _label(model, inputs, answers, Path(out), format, max_pixels, progress or automatic())
    elif out is not None and format != "jsonl":
        found.save(folders.make(out) / f"predictions.{format}", format)
    return found


def _check_shown(format: str, inputs: Any, out: str | Path | None) -> None:
    """Raise UserError where images with what was found cannot be written."""
    if out is None:
        raise UserError(f"{SHOWN.get(format, 'outlines of answers')} need a folder", where=f"--format {format}", fix="give --out DIR")
    if has_video(inputs):
        fix = "leave the format out: the answers are drawn into a video, and written as lines"
        raise UserError(f"{SHOWN.get(format, 'outlines of answers')} are of images, not of videos", where=f"--format {format}", fix=fix)
    if format in labelling.FORMATS:
        check_new(Path(out))


def _with_masks(answers: Iterator[Result | Failed], folder: Path) -> Iterator[Result | Failed]:
    """Answers, those of classes of pixels with their masks written: classes/000000-NAME.png ..., in the order of the inputs, and how unsure
    each pixel is, as a grey picture: uncertainty/000000-NAME.png. Of classes that overlap a folder, classes/000000-NAME/CLASS.png. What an
    earlier answer has left there under such names, and this one has not, is taken away at its end."""
    written: set[Path] = set()
    for number, answer in enumerate(answers):
        if isinstance(answer, Segmentation):
            name = folders.numbered(number, answer.source)
            place = folders.make(folder / MASKS) / (name if isinstance(answer, Layers) else f"{name}.png")
            written.add(place)
            answer = replace(answer, file=str(answer.save(place)))
            if answer.doubt is not None:
                shown = folders.make(folder / UNCERTAINTY) / f"{name}.png"
                written.add(files.write_bytes(shown, encoding.png_of(answer.doubt.bands(), answer.size)))
        yield answer
    for name in (MASKS, UNCERTAINTY) if written else ():
        folders.clear(folder / name, written)


def _draw(model: Predictor, inputs: Sequence[Any], answers: Sequence[Result | Failed], folder: Path, max_pixels: int) -> None:
    """Each image that was answered for, read once more, with its answer: 000000-NAME.png ..., in the order of the inputs."""
    task, channels = answering(model.card.task, "predict"), model.card.input.channels
    for number, (content, answer) in enumerate(zip(inputs, answers, strict=True)):
        if not isinstance(answer, Failed):
            step = answer.packed.step if isinstance(answer, Segmentation) else 1
            pixels = strips.thinned(content, step, channels=channels, max_pixels=max_pixels)
            picture = np.asarray(task.draw(pixels, answer))
            files.write_bytes(folder / f"{folders.numbered(number, answer.source)}.png", encoding.png(picture))


def _label(  # what was answered, and how it is to be written
    model: Predictor,
    inputs: Sequence[Any],
    answers: Sequence[Result | Failed],
    out: Path,
    format: str,
    max_pixels: int,
    progress: Progress,
) -> None:
    """A labelled set of what was found; what the format cannot hold is told."""
    pairs: list[Any] = [(content, one) for content, one in zip(inputs, answers, strict=True) if not isinstance(one, Failed)]
    for line in labelling.write(pairs, model.card, out, format, max_pixels):
        progress.message(line)


def _outline(places: Sequence[Georeference], answers: Sequence[Result | Failed], folder: Path) -> None:
    """The regions of each image that was answered for on the map: 000000-NAME.geojson ..., in the order of the inputs."""
    for number, (place, answer) in enumerate(zip(places, answers, strict=True)):
        if isinstance(answer, Segmentation):
            files.write_json(folder / f"{folders.numbered(number, answer.source)}.geojson", georeference.features(answer, place))


def predict_each(
    target: str | Path | Predictor,
    inputs: Any,
    *,
    out: str | Path | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    nms: str | None = None,
    tile: int = 0,
    tta: bool = False,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Iterator[Result | Failed]:
    """The same, one by one as they come and in order, bad images among them as `Failed`: for folders of any size.

    `out`: a folder whose predictions.jsonl grows with the results (predictions.jsonl.partial until it is whole), and videos beside it.
    Raises as `predict` does, before the first answer where the request is at fault.
    """
    folder = Path(out) if out is not None else None
    return _each(
        _opened(target, device, nms),
        inputs,
        folder,
        Looks(tile, tta),
        lines=folder is not None,
        strict=strict,
        max_pixels=max_pixels,
        precision=precision,
        progress=progress,
    )


def _opened(target: str | Path | Predictor, device: str, nms: str | None) -> Predictor:
    model: Predictor = load(target, device=device) if isinstance(target, str | Path) else target
    return model.by_way(nms)


def _each(  # what was asked, option by option
    model: Predictor,
    inputs: Any,
    folder: Path | None,
    looks: Looks,
    *,
    lines: bool,
    strict: bool,
    max_pixels: int,
    precision: str,
    progress: Progress | None,
) -> Iterator[Result | Failed]:
    """Answers; what belongs beside them, and with `lines` themselves, into the folder."""
    looks.check(model.card)
    total = count(inputs)
    kept: deque[Source] = deque()
    sources = _kept(inputs, max_pixels, kept if folder is not None else None)
    alone = views.alone(looks, model.card)
    answers = answered(
        lambda streams: views.asked(model.session(precision, streams=streams), looks), sources, max_pixels=max_pixels, alone=alone
    )
    if folder is not None:
        answers = drawn(_with_masks(answers, folder), kept, answering(model.card.task, "predict"), folder)
    file = Lines(folders.make(folder) / "predictions.jsonl") if folder is not None and lines else None
    return _written(watched(answers, strict, "predicting", total, progress or automatic()), file)


def _kept(inputs: Any, max_pixels: int, kept: deque[Source] | None) -> Iterator[Source]:
    """The sources; in `kept` those that have been asked for, until somebody takes them out."""
    for source in each_frame(expand(inputs), max_pixels):
        if kept is not None:
            kept.append(source)
        yield source


def answered(
    open_session: Callable[[int], Session],
    sources: Iterator[Source],
    *,
    max_pixels: int,
    finish: pipeline.Finish = tiling.results,
    alone: pipeline.Alone | None = None,
) -> Iterator[Any]:
    """What a session says of any sources, in order, bad ones among them as `Failed`. open_session(streams): it, for so many calls at once.

    Raises UserError at once where there are no images.
    """
    first = list(itertools.islice(sources, BATCH + 1))
    if not first:
        raise UserError("no images were given, or the folders hold none", fix="give files, folders or globs of images")
    # One call on all cores answers a few images soonest; many images are answered fastest by as many calls as there are cores.
    opened = open_session(cores() if len(first) > BATCH else 1)
    return pipeline.stream(opened, itertools.chain(first, sources), finish=finish, alone=alone, max_pixels=max_pixels)


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
