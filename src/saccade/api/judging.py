"""How good made images are: the features that they are compared to real ones on, and the figures of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.api.licensing import LEARNED
from saccade.api.sets import Split
from saccade.core import alpha, keys, modelfile
from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.prepare import prepare
from saccade.core.progress import Progress
from saccade.data.sample import Schema
from saccade.task import Budget, Making
from saccade.tasks import answering
from saccade.tasks.generation.metrics import INCEPTION, name_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from saccade.tasks.generation.metrics import GenerationMetric

Array = NDArray[Any]
GROUPS = 16  # of alike images, where there are no classes
SEEN, EPOCHS = 24_000, 10  # images that a network learns its features from, and times that it sees each, at most
THUMB = 8  # pixels a side by which images are alike
PART = 256
LOOKED_AT = 2_000  # images made for an evaluation in the midst of a run
FINAL = 10_000  # and for a final one
WEIGHTED = 16  # draws of the posterior for the importance-weighted bound


@dataclass
class Classifier:
    """The last features of a network that classifies: uint8 `[N, H, W, C]` -> float32 `[N, D, places]`."""

    module: nn.Module
    card: Card
    device: str

    def __call__(self, images: Array) -> Tensor:
        """See the class."""
        import torch

        from saccade.nn.features import evaluating

        layer, kept = answering(self.card.task, "features").features(self.module), list[Any]()
        hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            with evaluating(self.module), torch.inference_mode():
                self.module(torch.from_numpy(self._seen(images)).to(self.device))
        finally:
            hook.remove()
        # Maps [B, D, h, w]; tokens [B, N, D] of transformers.
        return (kept[0].flatten(2) if kept[0].ndim == 4 else kept[0].transpose(1, 2)).float()

    def _seen(self, images: Array) -> Array:
        spec = self.card.input
        if images.shape[1:] == (*spec.size, spec.channels):
            return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return np.stack([prepare(image, spec) for image in images])


@dataclass
class Features:
    """What images are compared on: maps uint8 `[N, H, W, 1 or 3]` -> float32 `[N, D, places]`, whose means are the features. `name` stands
    in the figures' names. pairs: how different pairs of images are in other ways, by the name of the figure: uint8 `[N, H, W, 1 or 3]`
    twice -> `[N]`."""

    name: str
    maps: Callable[[Array], Tensor]
    pairs: dict[str, Callable[[Array, Array], Tensor]] = field(default_factory=dict)
    _kept: dict[str, Array] = field(default_factory=dict)

    def of(self, images: Array) -> Array:
        """uint8 `[N, H, W, C]` (4 channels: premultiplied alpha) -> float32 `[N, D]`."""
        return np.concatenate([self.maps(part).mean(2).cpu().numpy() for part in _parts(images)])

    def apart(self, images: Array, others: Array) -> dict[str, Array]:
        """How different pairs of images look, float64 `[N]` by the name of each figure; on the features it is 0 to 4: see
        `distances.perceived`."""
        from saccade.tasks.generation.distances import perceived

        found = dict[str, list[Array]]()
        for a, b in zip(_parts(images), _parts(others), strict=True):
            found.setdefault(f"perceptual_{self.name}", []).append(perceived(self.maps(a).cpu().numpy(), self.maps(b).cpu().numpy()))
            for name, pair in self.pairs.items():
                found.setdefault(name, []).append(pair(a, b).double().cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def of_split(self, name: str, split: Split) -> Array:
        """Those of the images of a split, computed once."""
        if name not in self._kept:
            count = min(len(split), FINAL)
            places = in_any_order(split)[:count]
            parts = (np.stack([split.store[int(i)] for i in places[a : a + PART]]) for a in range(0, count, PART))
            self._kept[name] = np.concatenate([self.of(part) for part in parts])
        return self._kept[name]


def in_any_order(split: Split) -> NDArray[np.int64]:
    """The places of a split, always shuffled the same way: the first of them stand for all, where the files lie class by class."""
    return keys.generator(0, "reference", 0).permutation(len(split))


def _parts(images: Array) -> Iterator[Array]:
    """By so many at once; transparent ones over white."""
    for start in range(0, len(images), PART):
        part = images[start : start + PART]
        yield alpha.over_white(part) if part.shape[3] == 4 else part


def _colours(module: nn.Module, device: str, at_once: int) -> Callable[..., Tensor]:
    """A network for uint8 `[B, 3, H, W]` as one for `[N, H, W, 1 or 3]`, so many at once; grey is the same in all colours."""
    import torch

    module = module.to(device).eval()

    def answer(*images: Array) -> Tensor:
        put = [torch.from_numpy(one.transpose(0, 3, 1, 2)).expand(-1, 3, -1, -1) for one in images]
        with torch.inference_mode():
            return torch.cat(
                [module(*(part.to(device) for part in parts)) for parts in zip(*(one.split(at_once) for one in put), strict=True)]
            )

    return answer


def features(config: TrainConfig, schema: Schema, train: Split, device: str, file: Path | None, progress: Progress) -> Features:
    """The features that a configuration names.

    Those of its own images are read from `file` where that is there, else learned (the same each time) from the training split.
    Raises UserError for a name that is neither theirs, a model's nor a file's.
    """
    name = config.generation.features
    if name in LEARNED:
        if file is not None and file.is_file():
            return _loaded(name, file, device)
        return _learned(name, config, schema, train, device, progress)
    return named(name, device)


def named(name: str, device: str) -> Features:
    """Features of a classifier's model file, those that published figures are of, or of a model of timm with its published weights."""
    if name == INCEPTION:
        from saccade.tasks.generation import inception

        return Features(name, _colours(inception.pretrained(where="generation.features"), device, inception.AT_ONCE))
    if Path(name).suffix == ".safetensors" or Path(name).is_dir():
        from saccade.api.models import model_path

        file = model_path(name)
        return _loaded(name_of(name), file, device)
    task = answering("classify", "features")
    config = TrainConfig(model=name, pretrained=True, size=(224, 224))
    try:
        task.check(config)
        module, card = task.create(config, Schema("classify", ("a", "b"), {}, 3, (224, 224), True))
    except UserError as error:
        fix = f"{error.fix}; features are {', '.join((*LEARNED, INCEPTION))}, a model of timm, or a classifier's .safetensors file"
        raise UserError(error.message, where="generation.features", fix=fix) from None
    return Features(name_of(name), Classifier(module.to(device).eval(), card, device))


def with_lpips(on: Features, kind: str, task: Making, model: nn.Module, card: Card) -> Features:
    """The same, by which reconstructions are compared by LPIPS too. Raises UserError for a model that makes none, or whose images are too
    small."""
    from saccade.tasks.generation import lpips

    where = "--lpips"
    if not task.encodes(model):
        raise UserError("compares images with their reconstructions, and this model has no encoder", where=where, fix="leave it out")
    network = lpips.trained(kind, card.input.size, where=where)
    device = str(next(model.parameters()).device)
    return replace(on, pairs={f"lpips_{kind}": _colours(network, device, lpips.AT_ONCE)})


def _loaded(name: str, file: Path, device: str) -> Features:
    from saccade.api.models import load_model

    model = load_model(file, device=device)
    if model.card.task != "classify":
        raise UserError(f"features must be those of a classifier, this model was trained to {model.card.task}", where=str(file))
    return Features(name, Classifier(model.module, model.card, model.device))


def _learned(name: str, config: TrainConfig, schema: Schema, train: Split, device: str, progress: Progress) -> Features:
    """A small classifier of the training images: of their classes, or of groups of alike ones. A function of images and seed 0."""
    import torch

    from saccade.data.loader import Loader, Source
    from saccade.training.schedule import Schedule
    from saccade.training.step import Updater

    task = answering("classify", "features")
    store = _OverWhite(train.store) if config.channels == 4 else train.store
    if len(np.unique(train.store.sums)) < 2:
        raise _alike()
    targets = list(train.targets) if name == "classifier" else _groups(store)
    count = max(targets) + 1
    classes = schema.classes if name == "classifier" else tuple(f"group {i}" for i in range(count))
    seen = Schema(
        "classify", classes, {"train": tuple(np.bincount(targets, minlength=count).tolist())}, min(config.channels, 3), config.size, True
    )
    chosen, _ = task.recipe(seen, device, Budget(size=config.size, epochs=1.0, model=_network(config.size)))
    chosen = replace(chosen, seed=0, channels=min(config.channels, 3), warmup=0.1, channels_last=config.channels_last)
    torch.manual_seed(keys.derive(0, "init", 0))
    module, card = task.create(chosen, seen)
    module = module.to(device).to(memory_format=torch.channels_last if chosen.channels_last else torch.contiguous_format)
    updater = Updater(module, task.phases(module, chosen), chosen, "fp32")
    steps = max(50, min(SEEN, EPOCHS * len(targets)) // chosen.batch)
    schedule = Schedule(steps, chosen.warmup)
    loader = Loader(Source(store, targets, train.names), task.augment(chosen), seed=0, batch=chosen.batch)  # type: ignore[arg-type]
    progress.start("learning features", steps * chosen.batch, "images")
    for step in range(steps):
        batches = [batch.to(torch.device(device), channels_last=chosen.channels_last) for batch in loader.step(step * chosen.batch)]
        updater.step(batches, step, schedule.factor(step))
        progress.advance(chosen.batch)
    progress.finish()
    # As when it is read from a file: other strides take other kernels, whose last bits differ.
    return Features(name, Classifier(module.to(memory_format=torch.contiguous_format).eval(), card, device))


def _network(size: tuple[int, int]) -> str:
    """The fastest network of ours that sees enough of images of this size."""
    side = max(size)
    return "small_resnet_8px" if side < 24 else "small_resnet_28px" if side <= 64 else "small_resnet_128px"


def save_features(path: Path, found: Features) -> None:
    """Keep learned features beside the run that is measured on them, as a model file."""
    from saccade.nn import weights

    if found.name in LEARNED and isinstance(found.maps, Classifier):
        modelfile.save(path, weights.to_buffers(found.maps.module), found.maps.card)


class _OverWhite:
    """A store of premultiplied images, each laid over white."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        return alpha.over_white(self._store[place])


def _alike() -> UserError:
    return UserError(
        "the images are too much alike to learn features from",
        where="generation.features",
        fix="are they all one picture? saccade data check tells; or name other features, --set generation.features=resnet18",
    )


def _groups(store: Any) -> list[int]:
    """Which of some groups of alike images each belongs to: k-means on what they look like from afar (Caron et al. 2018 take features)."""
    from PIL import Image
    from sklearn.cluster import KMeans

    def thumb(pixels: Array) -> Array:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BOX), np.float32).ravel()

    rows = np.stack([thumb(store[i]) for i in range(len(store))])
    groups = min(GROUPS, max(2, len(rows) // 20))
    if len(np.unique(rows, axis=0)) < groups:
        raise _alike()
    labels: list[int] = KMeans(groups, n_init=1, random_state=0).fit_predict(rows).tolist()
    return labels


@dataclass(frozen=True)
class Looked:
    """A measured model: its figures, and images `[N, H, W, C]` that it made, with their latents and labels; classes: names."""

    metric: GenerationMetric
    made: Array
    latents: Array
    labels: Array | None
    classes: tuple[str, ...]


def look(task: Making, model: nn.Module, card: Card, on: Features, split: tuple[str, Split], *, count: int, seed: int = 0) -> Looked:
    """Measure a model: `count` images made by the keys 0, 1, ... of `seed`, against the images of a split."""
    from saccade.tasks.generation import latents as numbers

    name, held = split
    metric: GenerationMetric = task.metrics(card)  # type: ignore[assignment]
    metric.features = on.name
    latents = numbers.draw(seed, count, task.latent(model))
    frequencies = task.frequencies(model)
    labels = numbers.labels(seed, count, frequencies) if len(frequencies) else None
    made = task.sample(model, latents, labels)
    real = on.of_split(name, held)
    metric.update(list(on.of(made)), list(real))
    scores = task.judge(model, made.transpose(0, 3, 1, 2), labels)
    if scores is not None:
        images, truths = _images(held, min(len(held), LOOKED_AT))
        metric.update_judge(task.judge(model, images, truths if labels is not None else None), scores)  # type: ignore[arg-type]
    if task.encodes(model):
        _take(task, model, (held, metric, on), by_class=labels is not None, final=count >= FINAL)
    return Looked(metric, made, latents, labels, card.classes)


def _images(held: Split, count: int, first: int = 0) -> tuple[Array, Array | None]:
    places = in_any_order(held)[first : first + count].tolist()
    pixels = np.stack([held.store[i] for i in places]).transpose(0, 3, 1, 2)
    known = [held.targets[i] for i in places]
    return pixels, None if any(target is None for target in known) else np.array(known, np.int64)


def _take(task: Making, model: nn.Module, among: tuple[Split, GenerationMetric, Features], *, by_class: bool, final: bool) -> None:
    """Bounds and reconstructions of held-out images; the weighted bound only at the end, since it takes many passes."""
    from saccade.tasks.generation import latents as numbers

    (held, metric, on), draws = among, WEIGHTED if final else 1
    for first in range(0, min(len(held), FINAL if final else LOOKED_AT), PART):
        images, truths = _images(held, PART, first)
        noise = numbers.normals(0, "posterior", np.arange(first, first + len(images)), (draws, task.latent(model))).swapaxes(0, 1)
        taken = task.take(model, images, truths if by_class else None, noise)
        real, again = images.transpose(0, 2, 3, 1), taken.reconstructions
        metric.update_taken(real, taken.nats, again, weighted=taken.weighted, apart=on.apart(real, again))
