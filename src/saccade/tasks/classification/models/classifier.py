"""The module that trains, ships and exports: normalisation, then a network, in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.nn.layers.normalize import Normalize
from saccade.tasks.classification.models.classic import CifarResNet, LeNet5
from saccade.tasks.classification.models.small import SmallResNet

MOST = {"classes": 1_000_000, "channels": 1024, "width": 8192, "max_width": 8192, "stem_stride": 4}
MOST_STAGES, MOST_BLOCKS = 8, 64


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
    _check(card)
    if source == "saccade":
        return Classifier(own(card.architecture, elements), card.input)
    if source in ("timm", "torchvision"):
        from saccade.nn import backbones

        return Classifier(backbones.rebuild(dict(card.architecture), elements=elements), card.input)
    if source == "transformers":
        from saccade.tasks.classification.models import hf

        return Classifier(hf.build(dict(card.architecture), elements), card.input)
    raise UserError(f"unknown architecture source {source!r}", fix="the model was made by another version of saccade")


def _check(card: Card) -> None:
    """The network must take the card's channels and answer for its classes."""
    arguments = card.architecture.get("arguments")
    names = (("classes", "num_classes"), ("channels", "in_chans"))
    for (what, timms), wanted in zip(names, (len(card.classes), card.input.channels), strict=True):
        has = arguments.get(what, arguments.get(timms, wanted)) if isinstance(arguments, Mapping) else wanted
        if has != wanted:
            raise UserError(f"the network has {has!r} {what}, its card {wanted}", where="card", fix="the file was put together wrongly")


def own(architecture: Mapping[str, Any], elements: int | None = None) -> nn.Module:
    """A network of ours from its plain values, which may come from an untrusted file."""
    try:
        name = str(architecture["name"])
        build: Any = LeNet5 if name == "lenet5" else CifarResNet if name.startswith("cifar_resnet") else SmallResNet
        arguments = _arguments(dict(architecture["arguments"]), build)
        with torch.device("meta"):
            needed = sum(value.numel() for value in build(**arguments).state_dict().values())
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"not an architecture of ours: {error}", where="card") from None
    if elements is not None and needed > elements:
        raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    made: nn.Module = build(**arguments)
    return made


def _arguments(raw: dict[str, Any], build: type[nn.Module]) -> dict[str, Any]:
    """The constructor's arguments, each of its kind and within MOST; the constructor itself refuses names that it lacks."""
    if build is not SmallResNet:
        if not all(_whole(value, 1, MOST.get(name, MOST_BLOCKS)) for name, value in raw.items()):
            raise ValueError(f"arguments are out of range: {str(raw)[:80]}")
        return raw
    blocks = raw.get("blocks", [])
    if not (isinstance(blocks, list | tuple) and 1 <= len(blocks) <= MOST_STAGES and all(_whole(n, 0, MOST_BLOCKS) for n in blocks)):
        raise ValueError(f"blocks must be 1 to {MOST_STAGES} numbers from 0 to {MOST_BLOCKS}, got {str(blocks)[:80]}")
    for name, most in MOST.items():
        if name in raw and not _whole(raw[name], 1, most):
            raise ValueError(f"{name} must be from 1 to {most}, got {str(raw[name])[:80]}")
    if raw.get("stem_stride", 1) not in (1, 2, 4):
        raise ValueError(f"stem_stride must be 1, 2 or 4, got {raw['stem_stride']}")
    return {**raw, "blocks": tuple(blocks)}


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
