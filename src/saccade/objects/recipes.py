"""The recipe: model, size, rates and changes from what the data and the budget tell, each value with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from saccade.core.config import AugmentConfig, ObjectsConfig, TrainConfig
from saccade.core.geometry import fitting, padded
from saccade.data.sample import Schema
from saccade.task import HAS_WEIGHTS, Budget

TaskName = Literal["detect", "instances", "panoptic"]
PUBLISHED = {"detect": "fasterrcnn_mobilenet_v3_large_320_fpn", "instances": "maskrcnn_resnet50_fpn"}
SIDE = 320  # pixels of the longer side
LARGEST = 480  # and of that of an input in which small objects are enlarged
EXTENT = 16.0  # pixels of an object's side, below which few places of the finest map lie in it
COARSE, LARGE = 0.5, 64.0  # share of the run at half the size, where half of the objects have sides of so many pixels
CPU_MINUTES = 18.0
RATE = 1.5e-3  # of the default models
IMAGES_SEEN = 60_000  # training images over all epochs
SCENES = AugmentConfig(flip=0.5, color=0.3, hue=0.03, resize=(0.5, 1.5), mosaic=0.5)


def choose(task: TaskName, default: str, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration for this data, and a reason by line, each beginning with the key it explains."""
    size, why = _size(schema, budget)
    reasons = [f"size: {size[0]}x{size[1]}, {why}"]
    published = PUBLISHED.get(task) if budget.published else None
    own = (published, HAS_WEIGHTS) if published else (default, "learns from random weights in minutes")
    model, why = (budget.model, "as asked") if budget.model else own
    reasons.append(f"model: {model}, {why}")
    images = schema.images.get("train", 0)
    batch = (8 if task == "detect" else 4) if images < 2000 else 16
    reasons.append(f"batch: {batch}, enough steps an epoch with {images:,} training images")
    augment = SCENES if schema.channels == 3 else replace(SCENES, hue=0.0)
    reasons.append("augment: mirrored, at other scales, coloured, four on one canvas, as random weights need many views of each scene")
    epochs = max(12, min(300, round(IMAGES_SEEN / max(1, images))))
    reasons.append(f"epochs: {epochs}, from {images:,} training images")
    epochs *= 1 if budget.minutes is None else 2
    minutes = budget.limit(device, CPU_MINUTES, reasons)
    fresh = model == default and not budget.pretrained
    if fresh:
        reasons.append("optimizer: muon, learns from far fewer images seen than adamw from random weights")
    coarse = 0.0
    if fresh and (schema.extent or 0.0) * max(size) >= LARGE * max(schema.size):
        coarse = COARSE
        reasons.append(f"objects.coarse: {coarse:g} of the steps see images at half their size, large enough for half of the objects")
    if schema.stuff:
        reasons.append(f"objects.stuff: {len(schema.stuff)} of {len(schema.classes)} classes cannot be counted, as the data have it")
    rate, why = (RATE if model == default else 2e-4), "for random weights"
    if budget.pretrained:
        rate, why = 1e-4, "small, to keep what the weights know"
    config = TrainConfig(
        task=task,
        model=model,
        epochs=float(epochs),
        minutes=minutes,
        size=size,
        channels=schema.channels,
        batch=batch,
        optimizer="muon" if fresh else "adamw",
        lr=rate,
        weight_decay=0.05,
        warmup=0.05,
        ema=0.05,
        clip=10.0,
        augment=augment,
        objects=ObjectsConfig(coarse=coarse, stuff=schema.stuff),
    )
    reasons.append(f"lr: {config.lr:g}, {why}")
    return config, reasons


def _size(schema: Schema, budget: Budget) -> tuple[tuple[int, int], str]:
    """Of the images' own shape where they share one, so that nothing is padded; square where they differ."""
    if budget.size is not None:
        return budget.size, "as asked"
    side, why = min(SIDE, max(schema.size)), "to learn fast"
    if schema.extent is not None and schema.extent * side / max(schema.size) < EXTENT:
        side, why = (
            min(LARGEST, round(max(schema.size) * EXTENT / schema.extent)),
            f"as half of the objects have sides below {schema.extent:.0f} pixels",
        )
    if not schema.uniform:
        return padded((side, side)), f"into which images of about {schema.size[0]}x{schema.size[1]} are fitted whole, {why}"
    return padded(fitting(schema.size, (side, side))), f"the shape of the images, {schema.size[0]}x{schema.size[1]}, {why}"
