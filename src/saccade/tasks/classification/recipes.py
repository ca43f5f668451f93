"""The recipe: model, size, rates and augmentation from what the data and the budget tell, each value with its reason.

The values for random weights were found by experiment on handwritten digits of 8 and 28 pixels, CIFAR-10 excerpts and
phone photos (`benchmarks/datasets.py`, docs/results.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saccade.core.config import AugmentConfig, TrainConfig
from saccade.data.sample import Schema
from saccade.task import HAS_WEIGHTS, NO_COLOURS, Budget, without_colours
from saccade.tasks.classification import models

PUBLISHED = "resnet18"
SMALL = 64  # pixels up to which images are used at their own size
MANY = 20_000  # images from which a network that halves the picture at once is the better use of the time
PHOTO, PRETRAINED = 128, 224
CPU_MINUTES = 18.0
FEW, FEWEST = 100, 5  # images a class below which weights that have learned before are adapted otherwise; and a probe is worth a try
IMAGES_SEEN = 650_000  # training images over all epochs, where the set is not so small that it would be learned by heart

CHARACTERS = AugmentConfig(scale=0.1, rotate=10, shear=5, shift=0.06)
TINY_PICTURES = AugmentConfig(flip=0.5, crop=0.5, rotate=8, shift=0.06, color=0.3, hue=0.03, cutmix=0.5)
PHOTOS = AugmentConfig(flip=0.5, crop=0.4, rotate=12, shear=6, shift=0.03, color=0.4, hue=0.3, grey=0.2, mixup=0.2, cutmix=0.4)
GREY_PHOTOS = AugmentConfig(flip=0.5, crop=0.4, rotate=12, shear=6, shift=0.03, color=0.4, mixup=0.2, cutmix=0.4)
FINE_TUNING = AugmentConfig(flip=0.5, crop=0.5, color=0.3, cutmix=0.3)


@dataclass(frozen=True)
class _Facts:
    """What the choices hang on."""

    images: int
    each: int
    side: int
    grey: bool
    own: bool
    pretrained: bool

    @property
    def few(self) -> bool:
        """Whether weights that have learned before are adapted to few images of each class."""
        return self.pretrained and self.each < FEW


def choose(schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration for this data, and a reason by line, each beginning with the key it explains."""
    reasons: list[str] = []
    size, why = _size(schema, budget)
    reasons.append(f"size: {size[0]}x{size[1]}, {why}")
    images = schema.images.get("train", 0)
    model, why = (budget.model, "as asked") if budget.model else (PUBLISHED, HAS_WEIGHTS) if budget.published else _model(max(size), images)
    reasons.append(f"model: {model}, {why}")
    each = images // max(1, len(schema.classes))
    facts = _Facts(images, each, max(size), schema.channels == 1, models.is_own(model), budget.pretrained)
    batch = 32 if images < 1000 else 64 if images < MANY else 128
    reasons.append(f"batch: {batch}, enough steps an epoch with {images:,} training images")
    augment, why = _augment(facts)
    if schema.channels not in (1, 3):
        augment, why = without_colours(augment, schema.channels), f"{why}; {NO_COLOURS.format(schema.channels)}"
        reasons.append(f"channels: {schema.channels}, the bands of the images")
    reasons.append(f"augment: {why}")
    epochs, why = _epochs(facts)
    reasons.append(f"epochs: {epochs}, {why}")
    epochs *= 1 if budget.minutes is None else 2
    minutes = budget.limit(device, CPU_MINUTES, reasons)
    config = TrainConfig(
        task="classify",
        model=model,
        epochs=float(epochs),
        minutes=minutes,
        size=size,
        channels=schema.channels,
        batch=batch,
        lr=_rate(facts, batch),
        layer_decay=(0.9 if models.is_small(model) else 0.75) if facts.few else 1.0,
        weight_decay=0.05,
        warmup=0.1,
        label_smoothing=0.05 if facts.grey and facts.side <= SMALL else 0.1,
        ema=0.05,
        clip=0.0 if facts.own else 1.0,
        augment=augment,
    )
    reasons += [f"lr: {config.lr:g}, {_why_that_rate(facts)}"]
    reasons += [f"layer_decay: {config.layer_decay:g}, {_why_by_layer(facts)}"] if facts.pretrained else []
    return config, reasons


def _size(schema: Schema, budget: Budget) -> tuple[tuple[int, int], str]:
    if budget.size is not None:
        return budget.size, "as asked"
    if budget.learned is not None:
        return budget.learned, "that of the weights to start from"
    if max(schema.size) <= SMALL:
        same = "the images' own size" if schema.uniform else "the images' median size"
        return schema.size, same
    side = PRETRAINED if budget.pretrained else PHOTO
    return (side, side), f"images of about {schema.size[0]}x{schema.size[1]} made smaller to learn faster"


def _model(side: int, images: int) -> tuple[str, str]:
    if side <= 16:
        return "small_resnet_8px", "small network for very small images"
    if side <= SMALL:
        fast = side > 48 or (side >= 24 and images > MANY)
        return ("small_resnet_28px", "fast network for many small images") if fast else ("small_resnet_32px", "network for small images")
    return "small_resnet_128px", "network for photos that learns from random weights in minutes"


def _augment(facts: _Facts) -> tuple[AugmentConfig, str]:
    if facts.grey and facts.side <= SMALL:
        return CHARACTERS, "small turns and shifts, no mirroring, as small grey images are mostly characters"
    if facts.pretrained:
        return FINE_TUNING, "mirrored, cropped, mixed a little"
    if facts.side <= SMALL:
        return TINY_PICTURES, "mirrored, cropped, coloured and mixed, to learn more from few pixels"
    return (GREY_PHOTOS, "strong, without colour") if facts.grey else (PHOTOS, "strong, as random weights need many views of each photo")


def _epochs(facts: _Facts) -> tuple[int, str]:
    if facts.pretrained:
        return max(5, min(60, round(60_000 / max(1, facts.images)))), "few, as the weights are trained already"
    most = 40 if facts.side <= 16 else 140 if facts.side <= SMALL else 400
    epochs = max(8, min(most, round(IMAGES_SEEN / max(1, facts.images))))
    return epochs, f"from {facts.images:,} training images"


def _rate(facts: _Facts, batch: int) -> float:
    if facts.pretrained:
        return 1e-3 if facts.few else 3e-4
    if not facts.own:
        return 1e-3
    return 2e-3 if batch == 32 else 3e-3


def _why_that_rate(facts: _Facts) -> str:
    if facts.few:
        return f"as {facts.images:,} images make few steps, in which a new last layer has all to learn"
    return "small, to keep what the weights know" if facts.pretrained else "for random weights"


def _why_by_layer(facts: _Facts) -> str:
    """How weights that have learned before are adapted.

    While a last layer is new, what it learns changes the layers before it, for worse; to have it learned first is better than to learn all
    at once, and than to learn it alone (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform
    out-of-distribution"). And all layers learned are better than the last alone on most sets (Kornblith et al. 2019, "Do better
    ImageNet models transfer better?"). So where images are few, it leads, and each layer before it follows more slowly. Found by experiment
    with a small network, 10 and 50 clothing photos a class, from weights for CIFAR-10: a rate of 0.001 is far better than 0.0003; with 10,
    layer_decay=0.9 is about as good as 1, 0.75 and unfreeze=0.5 are worse. Deeper networks of libraries, which have not been tried here,
    get the 0.75 that is usual for them (He et al. 2022, "Masked autoencoders are scalable vision learners", appendix A.1). start_decay has
    not been tried.
    """
    if not facts.few:
        return f"one rate for all layers, as {facts.each:,} images a class can teach each of them"
    probe = "; a linear probe on what saccade embed gives takes seconds, and may do as well" if facts.each < FEWEST else ""
    return f"with {facts.each:,} images a class the new last layer leads, and what the first ones know changes least{probe}"
