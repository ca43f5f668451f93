"""Networks from their cards, which may come from an untrusted file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from saccade.core.card import Card
from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.tasks.segmentation import models
from saccade.tasks.segmentation.models.unet import Unet

MOST_WIDTH, MOST_BLOCKS, STAGES = 4096, 64, 5


def rebuild(card: Card, elements: int | None = None) -> nn.Module:
    """The module that a card describes, with fresh weights; raises UserError for another's, or one of more than `elements` numbers."""
    if card.input.resize not in ("fit", "native") or not 1 <= len(card.classes) <= IGNORED:
        raise UserError(f"a network that segments has 1 to {IGNORED} classes, and whole images", where="card")
    source = card.architecture.get("source")
    if source == "library":
        return _library(card, elements)
    if source == "transformers":
        from saccade.queries import network
        from saccade.tasks.segmentation.models.semantic import Semantic

        return network.rebuild(Semantic, card, network.checked(card, IGNORED), elements)
    if source != "saccade":
        raise UserError(f"unknown architecture source {source!r}", fix="the model was made by another version of saccade")
    try:
        arguments = _checked(card.architecture["arguments"], card)
        with torch.device("meta"):
            needed = sum(value.numel() for value in Unet(card.input, **arguments).state_dict().values())
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"not an architecture of ours: {error}", where="card") from None
    if elements is not None and needed > elements:
        raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return Unet(card.input, **arguments)


def _library(card: Card, elements: int | None) -> nn.Module:
    from saccade.tasks.segmentation.models import library

    name = card.architecture.get("name")
    if not isinstance(name, str) or card.architecture.get("arguments") != {"classes": len(card.classes), "channels": card.input.channels}:
        raise UserError("not the architecture of a library's network", where="card", fix="the file was put together wrongly")
    if name in models.OWN:
        raise UserError(f"{name} is no network of a library", where="card")
    models.check(name)
    return library.rebuild(card, elements)


def _checked(raw: Mapping[str, Any], card: Card) -> dict[str, Any]:
    """The constructor's arguments, each of its kind and size; the card's classes and channels are theirs."""
    if set(raw) != {"classes", "channels", "widths", "blocks"}:
        raise ValueError("arguments must be classes, channels, widths and blocks")
    for name, wanted in (("classes", len(card.classes)), ("channels", card.input.channels)):
        if raw[name] != wanted:
            raise UserError(
                f"the network has {raw[name]!r} {name}, its card {wanted}", where="card", fix="the file was put together wrongly"
            )
    for name, most in (("widths", MOST_WIDTH), ("blocks", MOST_BLOCKS)):
        values = raw[name]
        if not (isinstance(values, list) and len(values) == STAGES and all(type(value) is int and 1 <= value <= most for value in values)):
            raise ValueError(f"{name} must be {STAGES} numbers of 1 to {most}")
    return {"classes": raw["classes"], "widths": tuple(raw["widths"]), "blocks": tuple(raw["blocks"])}
