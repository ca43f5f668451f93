"""The recipe: model, size, rates and augmentation from what the data and the budget tell, each value with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.core.config import AugmentConfig, TrainConfig
from saccade.data.sample import Schema
from saccade.task import Budget


def choose(schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration for this data, and a reason by line."""
    return TrainConfig(task="classify", model="small_resnet", epochs=30, size=(schema.size if schema.uniform and max(schema.size)<=64 else (128,128)), channels=schema.channels, batch=64, lr=2e-3, ema=0.02, augment=AugmentConfig()), []
