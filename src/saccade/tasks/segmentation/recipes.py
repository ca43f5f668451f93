"""The recipe: model, size, rates, loss and changes from what the data and the budget tell, each value with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saccade.core.config import AugmentConfig, SegmentationConfig, TrainConfig
from saccade.core.geometry import fitting, padded
from saccade.data.sample import Schema
from saccade.queries.rows import ROWS as QUERIES
from saccade.task import HAS_WEIGHTS, NO_COLOURS, Budget, without_colours

DEFAULT = "small_unet"
PUBLISHED = "lraspp_mobilenet_v3_large"
PIECE = 256  # pixels of a side of what is seen at once where images are taken at their own pixels
NATIVE = 768  # pixels of the longer side up to which they are
SIDE = 384  # of larger images, which are scaled
CPU_MINUTES = 18.0
IMAGES_SEEN = 40_000  # training images over all epochs
OFTEN = 100  # views of an image from which on it is shown at other scales too
RARE = 0.02  # share of the pixels below which a class counts more: above it, weights only move edges outwards (docs/results.md)
MOST_WEIGHT = 10.0
COARSE, LEAST_COARSE = 0.5, 64  # share of the run, and pixels of the shorter side from which on something is left to see
CHANGES = AugmentConfig(flip=0.5, color=0.3, hue=0.03, resize=(0.7, 1.4))


def choose(schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration for this data, and a reason by line, each beginning with the key it explains."""
    native, size, why = _size(schema, budget)
    reasons = [f"size: {size[0]}x{size[1]}, {why}"]
    own = (PUBLISHED, HAS_WEIGHTS) if budget.published else (DEFAULT, "learns from random weights in minutes")
    model, why = (budget.model, "as asked") if budget.model else own
    reasons.append(f"model: {model}, {why}")
    images = schema.images.get("train", 0)
    batch = (8 if model == DEFAULT else 4) if device == "cpu" else 8 if images < 2000 else 16
    reasons.append(f"batch: {batch}, enough steps an epoch with {images:,} training images")
    epochs = max(12, min(300, round(IMAGES_SEEN / max(1, images))))
    fresh = model == DEFAULT and not budget.pretrained
    augment, why = _augment(schema, epochs * min(1.0, (budget.minutes or CPU_MINUTES) / CPU_MINUTES), fresh)
    banded = schema.channels not in (1, 3)
    reasons += [f"channels: {schema.channels}, the bands of the images"] if banded else []
    said = f"; {NO_COLOURS.format(schema.channels)}" if banded else ""
    reasons.append(f"augment: {why}{said}")
    queries = model in QUERIES["segment"]
    weights, why = ((), "none, as the model has a loss of its own, of whole masks") if queries else _weights(schema)
    reasons.append(f"segmentation.class_weights: {why}")
    if not queries:
        reasons.append("segmentation.dice: beside cross-entropy, which counts pixels, overlaps of classes, which is what is measured")
    if fresh:
        reasons.append("optimizer: muon, learns from far fewer images seen than adamw from random weights")
    coarse = COARSE if fresh and min(size) >= LEAST_COARSE else 0.0
    if coarse:
        reasons.append(
            f"segmentation.coarse: {coarse:g} of the run sees images at half their size, for a quarter of the work, to learn from more"
        )
    if schema.multi:
        reasons.append("segmentation.multi: true, a pixel of these data may have several classes, or none")
    reasons.append(f"epochs: {epochs}, from {images:,} training images")
    epochs *= 1 if budget.minutes is None else 2
    minutes = budget.limit(device, CPU_MINUTES, reasons)
    config = TrainConfig(
        task="segment",
        model=model,
        epochs=float(epochs),
        minutes=minutes,
        size=size,
        channels=schema.channels,
        batch=batch,
        optimizer="muon" if fresh else "adamw",
        lr=3e-3 if fresh else 1e-4 if queries else 3e-4,
        weight_decay=0.05,
        warmup=0.05,
        ema=0.05,
        clip=5.0,
        augment=augment,
        segmentation=SegmentationConfig(native=native, multi=schema.multi, class_weights=weights, coarse=coarse),
    )
    why = "as its authors have it" if queries else "small, to keep what the weights know" if budget.pretrained else "for random weights"
    reasons.append(f"lr: {config.lr:g}, {why}")
    return config, reasons


def _size(schema: Schema, budget: Budget) -> tuple[bool, tuple[int, int], str]:
    """Whether images are taken at their own pixels, and the size of the input."""
    about = f"{schema.size[0]}x{schema.size[1]}"
    if max(schema.size) <= NATIVE:
        size = budget.size or padded((min(PIECE, schema.size[0]), min(PIECE, schema.size[1])))
        why = f"{'as asked, ' * (budget.size is not None)}pieces of images of about {about} at their own pixels"
        return True, size, f"{why}; --set segmentation.native=false scales images to fit into it"
    own = "; --set segmentation.native=true takes them at their own"
    if budget.size is not None:
        return False, budget.size, f"as asked, into which images of about {about} are scaled{own}"
    if not schema.uniform:
        return False, (SIDE, SIDE), f"into which images of about {about} are scaled, to learn fast{own}"
    return False, padded(fitting(schema.size, (SIDE, SIDE))), f"the shape of the images, {about}, scaled to learn fast{own}"


def _augment(schema: Schema, views: float, fresh: bool) -> tuple[AugmentConfig, str]:
    """How images are changed: at other scales only where each will have many views (`benchmarks/segmentation.py --only shapes`)."""
    changes = CHANGES if schema.channels == 3 else without_colours(CHANGES, schema.channels)
    changes = replace(changes, paste=1.0) if fresh else changes
    mixed = ", with regions of others, as random weights know no shapes yet" if fresh else ""
    if views < OFTEN:
        return replace(changes, resize=(1.0, 1.0)), f"mirrored, coloured{mixed}; at their own scale, as each will be seen a few times only"
    return changes, f"mirrored, coloured{mixed}; at other scales, as there will be many views of each image"


def _weights(schema: Schema) -> tuple[tuple[float, ...], str]:
    """What a pixel of each class counts: those of rare classes by the root of how rare it is."""
    shares = [share for share in schema.shares if share > 0]
    if not shares or min(shares) >= RARE:
        return (), f"none, as no class has less than {RARE:.0%} of the pixels"
    raw = [min(MOST_WEIGHT, max(1.0, RARE / share) ** 0.5) if share > 0 else MOST_WEIGHT for share in schema.shares]
    rarest = schema.classes[min(range(len(raw)), key=lambda label: schema.shares[label])]
    return tuple(round(value, 2) for value in raw), f"rare classes count more: {rarest} has {100 * min(schema.shares):.2g} % of the pixels"
