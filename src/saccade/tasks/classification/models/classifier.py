"""The module that trains, ships and exports: normalisation, then a network, in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.nn.layers.normalize import Normalize
from saccade.tasks.classification.models.small import SmallResNet


class Classifier(nn.Module):
    """uint8 `[B, C, H, W]` -> logits float `[B, K]`."""

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.normalize = Normalize(spec)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, K]`."""
        logits: Tensor = self.network(self.normalize(images))
        return logits


def rebuild(card: Card, elements: int | None = None) -> Classifier:
    """The module that a card describes, with fresh weights.

    Raises UserError for an architecture that is not known here, or one of more than `elements` numbers: the card of a file
    from somewhere else must not make us allocate what its weights do not fill.
    """
    source = card.architecture.get("source")
    if source == "saccade":
        return Classifier(small(card.architecture, elements), card.input)
    if source == "timm":
        from saccade.nn import backbones

        return Classifier(backbones.rebuild(dict(card.architecture), elements=elements), card.input)
    raise UserError(f"unknown architecture source {source!r}", fix="the model was made by another version of saccade")


def small(architecture: Mapping[str, Any], elements: int | None = None) -> SmallResNet:
    """Our own network from its plain values."""
    try:
        arguments = {**architecture["arguments"], "blocks": tuple(architecture["arguments"]["blocks"])}
        with torch.device("meta"):
            needed = sum(value.numel() for value in SmallResNet(**arguments).state_dict().values())
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"not an architecture of ours: {error}") from None
    if elements is not None and needed > elements:
        raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}")
    return SmallResNet(**arguments)
