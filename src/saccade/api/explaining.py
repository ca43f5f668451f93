"""`explain`: where a model looks, drawn over the image, and its worst mistakes."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import files, images, prepare, tiles
from saccade.core.average_precision import overlaps
from saccade.core.errors import UserError, unknown
from saccade.core.geometry import fitting
from saccade.core.progress import Progress, automatic
from saccade.core.results import OBJECTS, WITHIN, Detections, Result
from saccade.core.rundir import RunDir
from saccade.prediction import tiling
from saccade.prediction.sources import count, expand
from saccade.tasks import answering

if TYPE_CHECKING:
    from saccade.api.models import Model

WORST = 12


@dataclass(frozen=True)
class Attribution:
    """One explained image. map: float32 `[H, W]` of the original image, 0..1; picture: uint8 `[h, w, 3]`, the map drawn over it."""

    source: str
    target: str
    result: Result
    map: NDArray[np.float32]
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Explanations:
    """Attributions in the order of the inputs, where their files stand, what could not be read, and a run's worst mistakes."""

    images: tuple[Attribution, ...]
    files: tuple[Mapping[str, str], ...] = ()
    failed: tuple[Mapping[str, str], ...] = ()
    mistakes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Attribution:
        return self.images[index]

    def to_dict(self) -> dict[str, Any]:
        """The object of `explain --json`; map and picture are None where no files were written."""
        held = [{"source": one.source, "target": one.target, "map": None, "picture": None} for one in self.images]
        return {
            "images": [dict(row) for row in self.files] or held,
            "mistakes": [dict(row) for row in self.mistakes],
            "failed": [dict(row) for row in self.failed],
        }

    def _repr_html_(self) -> str:
        import base64
        import io

        from PIL import Image

        cells = []
        for shown in self.images[:24]:
            data = io.BytesIO()
            Image.fromarray(shown.picture).save(data, "PNG")
            text = base64.b64encode(data.getvalue()).decode()
            name = html.escape(shown.source)
            picture = f"<img src='data:image/png;base64,{text}' width='224'>"
            cells.append(f"<figure style='display:inline-block'>{picture}<figcaption>{name}</figcaption></figure>")
        return "<div>" + "".join(cells) + "</div>"


def explain(
    target: str | Path | Model,
    inputs: Any,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    target_class: str | None = None,
    box: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Explanations:
    """Grad-CAM (Selvaraju et al. 2017) of each image for the class it was taken for, or for `target_class`.

    box: of a model that finds objects, what speaks for that one of a single image whose box overlaps this one (x1, y1, x2, y2 in pixels of
    the image) most, and not for the surest; with `target_class` for this class there, whether it was told or not.
    Pictures (PNG) and maps (.npy, float32 [H, W] of the original image) go to `out`, by default the run's explanations/ or ./explanations.
    Raises UserError when no image can be read.
    """
    from saccade.api.models import Model, load_model

    progress = progress or automatic()
    run = RunDir(Path(target)) if not isinstance(target, Model) and Path(target).is_dir() else None
    model = target if isinstance(target, Model) else load_model(target, device=device)
    found = explain_with(model, inputs, target_class=target_class, box=box, progress=progress)
    folder = Path(out) if out is not None else run.explanations if run is not None else Path("explanations")
    mistakes = worst_of(run, model) if run is not None else ()
    return Explanations(found.images, _write(folder, found.images), found.failed, mistakes)


def explain_with(
    model: Model, inputs: Any, *, target_class: str | None = None, box: Sequence[float] | None = None, progress: Progress | None = None
) -> Explanations:
    """The same for an opened model; writes nothing."""
    progress = progress or automatic()
    answering(model.card.task, "explain")
    classes = model.card.classes
    if target_class is not None and target_class not in classes:
        raise unknown("class", target_class, classes, where="--class")
    wanted = classes.index(target_class) if target_class is not None else None
    if box is not None:
        _check_box(model, inputs, box)
    shown, failed = [], []
    progress.start("explaining", count(inputs), "images")
    for source in expand(inputs):
        try:
            pixels, ready = look(model, source.content)
            shown.append(attribute(model, pixels, ready, source.name, wanted, box))
        except UserError as error:
            failed.append({"source": source.name, "reason": f"{error.message} ({error.fix})" if error.fix else error.message})
        progress.advance()
    progress.finish()
    if not shown:
        first = failed[0] if failed else {"source": "", "reason": "no images were given, or the folders hold none"}
        raise UserError(first["reason"], where=first["source"])
    return Explanations(tuple(shown), failed=tuple(failed))


def look(model: Model, content: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image whole for people, uint8 `[H, W, 1 or 3]` (`images.shown`), and as the model sees it, uint8 `[C, h, w]`; raises
    UserError where it cannot be read."""
    spec = model.card.input
    return images.shown(content, channels=spec.channels).pixels, prepare.read(content, spec).pixels


def attribute(
    model: Model,
    pixels: NDArray[np.uint8],
    ready: NDArray[np.uint8],
    source: str,
    wanted: int | None = None,
    box: Sequence[float] | None = None,
) -> Attribution:
    """Explain what `look` gave: what speaks for class `wanted`, or for the one that the image is taken for; of the object at `box`."""
    import torch

    from saccade.core import finish
    from saccade.explanation.attribution import gradcam, to_original
    from saccade.explanation.overlay import overlay

    task = answering(model.card.task, "explain")
    size: tuple[int, int] = pixels.shape[:2]
    batch = ready[None]
    if tiling.large(model.card, size):
        said = f"must have at most {tiles.WHOLE:,} pixels to be explained at its own, has {size[0] * size[1]:,}"
        raise UserError(said, where=source, fix="cut the part out of it that matters")
    result = finish.results(model.whole().session("fp32").run(batch), model.card, [size], [source])[0]
    if wanted is None and not len(result.labels):
        raise UserError("nothing was found in it", where=source, fix="name what to look for with --class")
    chosen = int(result.labels[0]) if wanted is None else wanted
    score: Any = task.score
    if box is not None and isinstance(result, Detections):
        chosen, place = _at(box, result, wanted)
        down, across = (new / old for new, old in zip(fitting(size, model.card.input.size), size, strict=True))
        inside = torch.tensor([[place[0] * across, place[1] * down, place[2] * across, place[3] * down]], device=model.device)
        score = partial(score, boxes=inside)
    layer = task.features(model.module)
    maps = gradcam(model.module, layer, torch.from_numpy(batch).to(model.device), score, torch.tensor([chosen], device=model.device))
    whole = to_original(maps[0], size, model.card.input)
    return Attribution(source, model.card.classes[chosen], result, whole, overlay(pixels, whole))


def _check_box(model: Model, inputs: Any, box: Sequence[float]) -> None:
    """Raise UserError for what is no box, or cannot be explained."""
    if model.card.task not in OBJECTS:
        raise UserError(f"is for models that find objects, this one is for {model.card.task}", where="--box", fix="leave it out")
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
        said = ",".join(f"{value:g}" for value in box)
        raise UserError(f"must be left, top, right and bottom of a box in pixels, got {said}", where="--box")
    if (several := count(inputs)) != 1:
        raise UserError(f"is in one image, got {several if several is not None else 'a folder'}", where="--box", fix="explain them in turn")


def _at(box: Sequence[float], result: Detections, wanted: int | None) -> tuple[int, list[float]]:
    """Class and box of what was told nearest to `box`; of class `wanted`, these themselves."""
    if wanted is not None:
        return wanted, list(box)
    near = overlaps(result.boxes, np.array([box], np.float64), np.zeros(1, bool))[:, 0]
    best = int(near.argmax())
    if near[best] <= 0:
        raise UserError("no object that was found overlaps it", where="--box", fix="name what to look for there with --class")
    return int(result.labels[best]), result.boxes[best].tolist()


def worst_of(run: RunDir, model: Model, n: int = WORST) -> tuple[dict[str, Any], ...]:
    """The worst mistakes of the run's last evaluation, where the truth lies within the images the images with most: test where it has been
    evaluated, else validation."""
    from saccade.api import drawing, mapping
    from saccade.evaluation.predictions import read_predictions
    from saccade.explanation.mistakes import worst

    for name in ("test", "val"):
        file = run.predictions / f"{name}.jsonl"
        if file.is_file():
            if model.card.task in WITHIN:
                ranked = drawing.worst if model.card.task in OBJECTS else mapping.worst
                return tuple(ranked(files.read_lines(file), model.card, n))
            return tuple(worst(read_predictions(file), n))
    return ()


def _write(folder: Path, shown: Sequence[Attribution]) -> tuple[dict[str, str], ...]:
    from saccade.core import encoding, folders

    folders.make(folder)
    rows = []
    for number, one in enumerate(shown):
        stem = f"{number:04d}-{folders.stem(one.source)}"
        map_file = files.write_bytes(folder / f"{stem}.npy", encoding.npy(one.map))
        picture_file = files.write_bytes(folder / f"{stem}.png", encoding.png(one.picture))
        rows.append({"source": one.source, "target": one.target, "map": str(map_file), "picture": str(picture_file)})
    return tuple(rows)
