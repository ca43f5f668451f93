"""`embed`: images as vectors, for whatever takes those: scikit-learn, search, clusters, plots."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.api import licensing, taking
from saccade.api.models import Model, Predictor, load_model, model_path
from saccade.api.predicting import answered, watched
from saccade.core import config as configs
from saccade.core import folders, keys, licenses, modelfile
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.images import MAX_PIXELS
from saccade.core.progress import Progress, automatic
from saccade.data.sample import Schema
from saccade.nn.pretrained import TORCHVISION
from saccade.prediction.embeddings import FEATURES, Embeddings, check_file, rows
from saccade.prediction.pipeline import Failed
from saccade.prediction.session import Session
from saccade.prediction.sources import count, each_frame, expand
from saccade.tasks import answering
from saccade.tasks.classification.models import hf_rows

TASK = "classify"  # of the models that embed
CLASSES = ("a", "b")  # of a network that has none: what tells them apart is left out


def embed(
    target: str | Path | Predictor,
    inputs: Any,
    *,
    layer: str | None = None,
    out: str | Path | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    license: str | Sequence[str] | None = None,
    size: tuple[int, int] | str | int | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Embeddings:
    """A vector for each image, float32 `[N, D]`, of inputs as `predict` takes them: what the last layer of a classifier decides by.

    target: a run, a model file or what `load` gave, or the name of a network that classifies (`saccade.models`), with its published weights
    where `pretrained`, with those of the file `weights`, else with random ones that follow from `seed`; `license`: see `train`; `size`,
    (height, width), is that of its input (by default that of the weights, else 224). layer: a module of the network by name, such as
    "layer3", averaged over places, in the last one's place. out: a .npz file for "embeddings" and "sources". Bad images have no row and
    stand in `.failed`; raises UserError when none could be read, for the first bad one with `strict`, and for models of other tasks.
    """
    progress = progress or automatic()
    if out is not None:
        check_file(out)
    model = opened(target, pretrained=pretrained, weights=weights, license=license, size=size, device=device, seed=seed, progress=progress)
    begin = time.perf_counter()
    sources = each_frame(expand(inputs), max_pixels)
    answers = answered(lambda streams: _session(model, layer or "", precision, streams), sources, max_pixels=max_pixels, finish=rows)
    if out is not None:
        folders.make(Path(out).parent)  # refused before the work, not after it
    each = list(watched(answers, strict, "embedding", count(inputs), progress))
    failed = [one.to_dict() for one in each if isinstance(one, Failed)]
    found = Embeddings.of([one for one in each if not isinstance(one, Failed)], failed, time.perf_counter() - begin)
    if out is not None:
        found.save(out)
    return found


def opened(
    target: str | Path | Predictor,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    license: str | Sequence[str] | None = None,
    size: tuple[int, int] | str | int | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Model:
    """The model that embeds: see `embed`."""
    if not isinstance(target, Predictor) and not _is_place(target):
        asked = TrainConfig(
            model=str(target),
            pretrained=pretrained,
            weights=str(weights) if weights is not None else "",
            license=licenses.names(license),
            seed=seed,
        )
        return _named(asked, size, device, progress or automatic())
    for option, given in (("--pretrained", pretrained), ("--weights", weights is not None), ("--size", size is not None)):
        if given:
            raise UserError("goes with the name of a network: a trained model has its own weights and size", where=option)
    if isinstance(target, Predictor) and not isinstance(target, Model):
        target = target.path  # of an exported file, which is refused as its path is
    if license is not None and not isinstance(target, Model):
        licensing.of_file(model_path(target), licenses.names(license), where="--license")
    model = target if isinstance(target, Model) else load_model(target, device=device)
    if model.card.task != TASK:
        raise UserError(f"only models that classify embed images, this one was trained to {model.card.task}", where=str(model.path))
    return model


def _is_place(target: str | Path) -> bool:
    """Whether a target is meant as a file or folder, not as a network's name."""
    path = Path(target)
    if isinstance(target, Path) or os.path.exists(path) or path.suffix in (".safetensors", ".onnx", ".xml"):
        return True
    return len(path.parts) != 1 and not target.startswith((TORCHVISION, hf_rows.PREFIX))


def _named(asked: TrainConfig, size: tuple[int, int] | str | int | None, device: str, progress: Progress) -> Model:
    """A network of the catalogue as a model without a file."""
    room, name = answering(TASK, "embed"), asked.model
    try:
        room.check(asked)
    except UserError as error:
        if name.startswith(hf_rows.PREFIX):
            raise
        raise UserError(f"no such run, model file or network: {name!r}", where="embed", fix=error.fix) from None
    if asked.pretrained and asked.weights:
        raise UserError("stands in the place of --pretrained", where="--weights", fix="give one of them")
    licensing.check(asked)
    import torch

    from saccade.training import precision

    on = precision.device(device)
    config = replace(asked, size=_size(asked, size))
    if not (config.pretrained or config.weights):
        progress.message(f"{name} has random weights: --pretrained takes those that are published, --weights those of a file")
    schema = Schema(TASK, CLASSES, {}, 3, config.size, True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keys.derive(config.seed, "init", 0))
        module, card = room.create(config, schema)
        if config.weights:
            card, _ = taking.take(room, config, schema, module, card, progress)
    return Model(card, Path(name), module.to(on).eval(), str(on))


def _size(asked: TrainConfig, size: tuple[int, int] | str | int | None) -> tuple[int, int]:
    """(height, width) of the input: as asked, else that of the weights, else of any network."""
    from saccade.nn import pretrained as published

    if size is not None:
        return configs.parse_size(str(size)) if isinstance(size, str | int) else size
    if asked.weights and not modelfile.is_pickled(asked.weights) and (card := modelfile.peek(asked.weights)) is not None:
        return card.input.size
    row = next((row for row in answering(TASK, "embed").models() if row.name == asked.model.partition(".")[0]), None)
    if asked.pretrained and row is not None and row.source in ("timm", "torchvision"):
        return published.weights(asked.model).size
    return (row.size if asked.weights and row is not None else None) or TrainConfig().size


def _session(model: Model, layer: str, precision: str, streams: int) -> Session:
    from saccade.nn.embedding import Embedder
    from saccade.prediction.torch_session import TorchSession
    from saccade.training import precision as precisions

    on = precisions.device(model.device)
    module = Embedder(model.module, layer, answering(model.card.task, "embed").features)
    return TorchSession(
        module,
        model.card,
        lambda outputs, size: {FEATURES: outputs},
        device=str(on),
        precision=precisions.resolve(precision, on),
        streams=streams,
    )
