"""The configuration of a run: frozen, typed, in the field's own units; `key=value` overrides; the nearest name on a typo."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from saccade.core.errors import UserError, unknown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to the training images; 0 switches one off.

    flip: probability of a horizontal flip. crop: smallest share of the image's area that a random crop keeps (1: no
    crop), of aspect ratio within 3/4..4/3 of the input's. shift, as a share of the side; rotate and shear in degrees; scale: relative
    range (0.1: 0.9..1.1). color: strength of brightness, contrast and saturation changes; hue: share of the colour
    circle. grey: probability of a grey copy. erase: probability of erasing a rectangle. mixup, cutmix: probabilities
    of mixing a pair of neighbours (Zhang et al. 2018; Yun et al. 2019). Where there are boxes or masks of classes or objects: resize: range
    of scales at which an image is placed, by that at which it fits (0.1 to 2: large-scale jitter); mosaic: probability of four images on
    one canvas; paste: that of objects, or regions of one class, from another image, which need masks.
    """

    flip: Share = 0.0
    crop: Annotated[float, Gt(0), Le(1)] = 1.0
    shift: Annotated[float, Ge(0), Le(0.5)] = 0.0
    scale: Annotated[float, Ge(0), Lt(1)] = 0.0
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0
    shear: Annotated[float, Ge(0), Le(60)] = 0.0
    color: Annotated[float, Ge(0), Le(1)] = 0.0
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    grey: Share = 0.0
    erase: Share = 0.0
    mixup: Share = 0.0
    cutmix: Share = 0.0
    resize: tuple[Annotated[float, Gt(0), Le(8)], Annotated[float, Gt(0), Le(8)]] = (1.0, 1.0)
    mosaic: Share = 0.0
    paste: Share = 0.0

    @property
    def zooms(self) -> bool:
        """Whether images must be resampled."""
        return self.crop < 1 or bool(self.scale or self.rotate or self.shear)


@dataclass(frozen=True)
class GenerationConfig:
    """What only models that make images are trained by.

    conditional: images are made by class. latent: numbers an image is made from (0: the model's own). features: what the distances
    between made and real images are measured on: "classifier" or "clusters" (a small network trained on the same images before the first
    step, to tell their classes, or groups of alike ones), "inception" (the network that published figures are measured on), a model of timm
    with published weights, or the path of a model file of a classifier.

    GANs. loss: see `tasks/generation/adversarial.py`. r1, r2: weights of the gradient penalties at real and at made images (gamma; Huang
    et al. 2024), taken at every `penalty_every`-th step and multiplied by it; gradient_penalty: that of WGAN-GP.
    augment: probability of each differentiable change to what the judge sees; adaptive: it is found by how
    sure the judge is of real images.

    VAEs. likelihood: of a pixel's 256 values ("": the model's own); beta: weight of the divergence, in full after `kl_warmup` steps;
    free_bits: nats of each latent number that cost nothing.

    The autoencoders of diffusers. perceptual: weight of the distance of images and reconstructions on the layers of a judge; adversarial:
    weight of its verdict from step `adversarial_after` on (its own loss is `loss`, with r1 and penalty_every).
    """

    conditional: bool = False
    latent: Annotated[int, Ge(0), Le(1 << 16)] = 0
    features: str = "clusters"
    loss: Literal["relativistic", "non-saturating", "hinge", "wasserstein"] = "relativistic"
    r1: Annotated[float, Ge(0)] = 0.0
    r2: Annotated[float, Ge(0)] = 0.0
    gradient_penalty: Annotated[float, Ge(0)] = 0.0
    penalty_every: Annotated[int, Ge(1)] = 1
    augment: Share = 0.0
    adaptive: bool = False
    likelihood: Literal["", "logistic", "gaussian", "bernoulli"] = ""
    beta: Annotated[float, Ge(0)] = 1.0
    kl_warmup: Annotated[int, Ge(0)] = 0
    free_bits: Annotated[float, Ge(0)] = 0.0
    perceptual: Annotated[float, Ge(0)] = 0.0
    adversarial: Annotated[float, Ge(0)] = 0.0
    adversarial_after: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class SegmentationConfig:
    """What only models that give each pixel a class are trained by.

    native: images are taken at their own pixels, and training sees pieces of the input's size; else they are scaled to fit into it.

    The loss is the sum of these, each by its weight: cross_entropy; focal (Lin et al. 2017): the same, less where it is met; dice
    (Milletari et al. 2016) and lovasz (Berman et al. 2018): of the overlap of each class; boundary (Kervadec et al. 2019): by the distance
    from the class's edge. class_weights: what a pixel of each class counts in the first two, in the order of the classes (none: all the
    same). multi: a pixel may have several classes, or none, which the data tell: cross-entropy and Dice are of each class by itself then.
    coarse: share of the run, from its start, in which images are seen at half their size, for a quarter of the work.
    """

    native: bool = False
    multi: bool = False
    cross_entropy: Annotated[float, Ge(0)] = 1.0
    focal: Annotated[float, Ge(0)] = 0.0
    dice: Annotated[float, Ge(0)] = 1.0
    lovasz: Annotated[float, Ge(0)] = 0.0
    boundary: Annotated[float, Ge(0)] = 0.0
    class_weights: tuple[Annotated[float, Gt(0)], ...] = ()
    coarse: Share = 0.0


@dataclass(frozen=True)
class ObjectsConfig:
    """What only models that find objects have.

    nms: how doubles are suppressed (`core.nms`): those of one class, of all classes, softly, or not at all ("": the model's own way).
    coarse: share of the run, from its start, in which images are seen at half their size, for a quarter of the work.
    stuff: places of the classes that cannot be counted, which the data tell (panoptic).
    """

    nms: Literal["", "class", "agnostic", "soft", "none"] = ""
    coarse: Share = 0.0
    stuff: tuple[Annotated[int, Ge(0)], ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run is made from, but for data and seed-independent facts of the machine.

    data: absolute path. weights: a file to start from; weights_share: the least share of the network's numbers that it must fill; license:
    names of the licences that weights from elsewhere may be under (none: any). epochs
    counts passes over the training split; minutes is wall time from the start of the command and wins where both are given. size: (height,
    width) of the model's input. batch: images per optimizer step; micro_batch: images per forward pass (0: the whole batch). lr: peak
    learning rate; warmup: share of all steps spent rising to it. momentum: of sgd; betas: of adamw, and of what is no matrix to muon
    (`training/muon.py`). weight_decay spares biases and norms. ema: half-life of the averaged weights as a share of all steps (0: off).
    Of weights that have learned before: layer_decay: the rate of each layer is that of the next one times this (1: all the same; Clark et
    al. 2020, "ELECTRA"); unfreeze: share of all steps until the first layer learns, the last one from the start and those between in turn
    (0: all from the start; Howard & Ruder 2018, "ULMFiT"); start_decay: of them towards what they were, in place of weight_decay (L2-SP, Li
    et al. 2018, "Explicit inductive bias for transfer learning").
    clip: largest gradient norm (0: off). on_nan: what a loss or gradient that is no finite number does: end the run, leave that step
    out, or go back to the last checkpoint and on at half the rate. patience: evaluations without improvement before stopping (0: never).
    skip_bad: leave out images that cannot be read; images: show pictures in the report. device, precision and workers
    are facts of the machine; workers change no result at all. compile: train by torch.compile. shard: spread weights and moments over the
    processes of the run. edits: changes of the network on the way, each with its time: "at step 2000: deepen layer2 +1"
    (`core/scheduled.py`).
    """

    data: str = ""
    task: str = "classify"
    model: str = ""
    pretrained: bool = False
    weights: str = ""
    weights_share: Share = 0.5
    license: tuple[str, ...] = ()
    epochs: Annotated[float, Ge(0)] = 0.0
    minutes: Annotated[float, Ge(0)] | None = None
    size: tuple[Annotated[int, Ge(1), Le(16384)], Annotated[int, Ge(1), Le(16384)]] = (224, 224)
    channels: Annotated[int, Ge(1), Le(1024)] = 3
    batch: Annotated[int, Ge(1)] = 64
    micro_batch: Annotated[int, Ge(0)] = 0
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: Annotated[float, Ge(0)] = 1e-3
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Ge(0)] = 0.05
    warmup: Share = 0.05
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    ema: Share = 0.0
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    unfreeze: Annotated[float, Ge(0), Lt(1)] = 0.0
    start_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Ge(0)] = 0.0
    on_nan: Literal["stop", "skip", "back"] = "stop"
    patience: Annotated[int, Ge(0)] = 0
    seed: Annotated[int, Ge(0), Lt(1 << 63)] = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    workers: Annotated[int, Ge(0)] | None = None
    compile: bool = False
    shard: bool = False
    skip_bad: bool = False
    images: bool = True
    edits: tuple[str, ...] = ()
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, nested as the fields are."""
        lists = {"size": list(self.size), "betas": list(self.betas), "edits": list(self.edits), "license": list(self.license)}
        return dataclasses.asdict(self) | lists


# The nested ones, by the key before the dot.
GROUPS = {"augment": AugmentConfig, "generation": GenerationConfig, "segmentation": SegmentationConfig, "objects": ObjectsConfig}
CHANGEABLE = {"lr", "weight_decay", "momentum", "betas", "clip", "label_smoothing", "patience", "batch", "micro_batch", "epochs"}
# Of other toolkits.
USUAL = {"learning_rate": "lr", "batch_size": "batch", "max_epochs": "epochs", "num_epochs": "epochs", "wd": "weight_decay"}


def keys() -> list[str]:
    """Every name that `key=value` takes, nested ones with a dot."""
    nested = [f"{group}.{f.name}" for group, kind in GROUPS.items() for f in dataclasses.fields(kind)]
    return [f.name for f in dataclasses.fields(TrainConfig) if f.name not in GROUPS] + nested


def _unknown(key: str, where: str) -> UserError:
    """For a key that there is not, but perhaps elsewhere, under another name."""
    usual = USUAL.get(key.replace("-", "_").lower())
    if usual is None:
        return unknown("key", key, keys(), where=where)
    return UserError(f"unknown key {key!r}", where=where, fix=f"did you mean {usual}?")


def check_changeable(settings: Iterable[str]) -> None:
    """Raise UserError for a key that cannot be set while a run is on its way."""
    names = [key for key in keys() if key in CHANGEABLE or key.startswith("augment.")]
    for key in settings:
        if key not in names:
            raise unknown("setting of a run in progress", key, names, where="set")


def dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `to_dict`, or some of them, by dotted key."""
    nested = {f"{group}.{name}": value for group in GROUPS for name, value in values.get(group, {}).items()}
    return {name: value for name, value in values.items() if name not in GROUPS} | nested


_TEXTS = frozenset(f.name for f in dataclasses.fields(TrainConfig) if f.type == "str") | {"generation.features"}


def parse_override(text: str, where: str = "--set") -> tuple[str, Any]:
    """`key=value` -> (key, value): the value is JSON where it reads as JSON, else text; sizes may be S or HxW."""
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator:
        raise UserError(f"an override must be key=value, got {text!r}", where=where)
    if key not in keys():
        raise _unknown(key, where)
    return key, parse_size(value) if key == "size" else _value(value, text_only=key in _TEXTS)


def parse_size(text: str) -> tuple[int, int]:
    """`S` or `HxW` -> (height, width)."""
    parts = text.strip().strip("[]").replace(",", "x").lower().split("x")
    if not (1 <= len(parts) <= 2 and all(p.strip().isdecimal() and 0 < int(p) <= 16384 for p in parts)):
        raise UserError(f"a size must be S or HxW in pixels (1 to 16384), got {text!r}", where="size")
    return int(parts[0]), int(parts[-1])


def _value(text: str, *, text_only: bool) -> Any:
    """JSON where it reads as JSON, else the text as it stands, which is always right for a name such as `2024`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
    return text.strip() if text_only and not isinstance(value, str) else value


def override(config: TrainConfig, changes: Mapping[str, Any], *, where: str = "--set") -> TrainConfig:
    """A checked copy of `config` with `changes` (dotted keys); raises UserError naming the key and what it takes."""
    raw = config.to_dict()
    for key, value in changes.items():
        if key not in keys():
            raise _unknown(key, where)
        group, dot, name = key.partition(".")
        if dot:
            raw[group][name] = value
        else:
            raw[key] = value
    return from_dict(raw, where=where)


def from_dict(raw: Mapping[str, Any], *, where: str = "config") -> TrainConfig:
    """The TrainConfig that `to_dict` wrote, checked field by field; raises UserError in one line."""
    from pydantic import ValidationError

    if not isinstance(raw, Mapping):
        raise UserError(f"a configuration must be an object, got {type(raw).__name__}", where=where)
    for name in _flat_names(raw):
        if name not in keys():
            raise _unknown(name, where)
    try:
        config = _adapter().validate_python(dict(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}", where=where) from None
    for name, value in _numbers(config):
        if not math.isfinite(value):
            raise UserError(f"{name}: must be a finite number, got {value}", where=where)
    return config


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[TrainConfig]:
    """Made once: it takes longer than a short run's first steps."""
    from pydantic import TypeAdapter

    return TypeAdapter(TrainConfig)


def _numbers(config: TrainConfig) -> Iterable[tuple[str, float]]:
    return ((name, value) for name, value in dotted(config.to_dict()).items() if isinstance(value, float))


def _flat_names(raw: Mapping[str, Any]) -> Iterable[str]:
    for name, value in raw.items():
        if name in GROUPS and isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)
        elif name not in GROUPS:
            yield str(name)
