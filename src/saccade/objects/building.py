"""Detectors from their cards, which may come from an untrusted file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.objects.one_stage import OneStage, WithPixels

MOST_CLASSES, MOST_WIDTH, MOST_BLOCKS = 1_000_000, 4096, 64
NAMES = {"classes", "channels", "widths", "blocks", "head"}
MASKS = "prototypes"  # one more, where masks are found


def rebuild(card: Card, elements: int | None = None) -> OneStage:
    """The module that a card describes, with fresh weights, for things and stuff one that tells pixels too; raises UserError for another's,
    or one of more than `elements` numbers."""
    if card.architecture.get("source") != "saccade":
        raise UserError(
            f"unknown architecture source {card.architecture.get('source')!r}", fix="the model was made by another version of saccade"
        )
    kind = WithPixels if card.task == "panoptic" else OneStage
    try:
        arguments = _checked(card.architecture["arguments"], card)
        with torch.device("meta"):
            needed = sum(value.numel() for value in kind(card.input, **arguments).state_dict().values())
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"not an architecture of ours: {error}", where="card") from None
    if elements is not None and needed > elements:
        raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return kind(card.input, **arguments)


def _checked(raw: Mapping[str, Any], card: Card) -> dict[str, Any]:
    """The constructor's arguments, each of its kind and size; the card's classes and channels are theirs."""
    names = NAMES | ({MASKS} if card.task != "detect" else set())
    if set(raw) != names:
        raise ValueError(f"arguments must be {', '.join(sorted(names))}")
    for name, wanted in (("classes", len(card.classes)), ("channels", card.input.channels)):
        if raw[name] != wanted:
            raise UserError(
                f"the network has {raw[name]!r} {name}, its card {wanted}", where="card", fix="the file was put together wrongly"
            )
    if not 1 <= raw["classes"] <= MOST_CLASSES or card.input.resize != "fit":
        raise ValueError(f"a detector has at least a class, and images that are fitted whole, not {raw['classes']} by {card.input.resize}")
    lists = {name: raw[name] for name in ("widths", "blocks")}
    if not all(isinstance(values, list) and len(values) == 4 for values in lists.values()):
        raise ValueError("widths and blocks must be four numbers each")
    limits = [(value, MOST_WIDTH) for value in (*raw["widths"], raw["head"], raw.get(MASKS, 1))]
    limits += [(value, MOST_BLOCKS) for value in raw["blocks"]]
    if not all(type(value) is int and 1 <= value <= most for value, most in limits) or min(raw["widths"][0], raw["head"]) < 2:
        raise ValueError("widths, blocks, head and prototypes are out of range")
    lists = {name: tuple(values) for name, values in lists.items()}
    return {"classes": raw["classes"], **lists, "head": raw["head"], "prototypes": raw.get(MASKS, 0)}
