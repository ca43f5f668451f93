"""The detectors of transformers behind the rooms' doors: their own losses, images as the rooms prepare them, no network at any time.

They answer by queries, one for each object, so that nothing has to be suppressed: the card says so by "nms". What an image is padded with
is a part of the input to them too, no mask tells it apart. Their denoising queries (Zhang et al. 2023, "DINO") are drawn from torch's
generator, which the loop seeds before each forward pass: the same when a run is resumed, not when a batch is split in another way.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core import licenses
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import FILL, MULTIPLE, padded
from saccade.core.modelfile import Buffer
from saccade.core.nms import WAYS
from saccade.data.loader import Batch
from saccade.nn import hub, pretrained
from saccade.nn.hooks import of_place
from saccade.nn.layers.normalize import Normalize
from saccade.objects.detr_rows import FAMILIES, Row, architecture, check
from saccade.task import Losses, Outputs

MOST_CLASSES = 100_000
REACH, STEPS = 16, 64  # logits from -REACH to REACH are told apart in steps of 1 / STEPS when queries are chosen: see `ranked`
OF_CLASSES = ("class_embed.", "enc_score_head.")  # in the names of tensors that have rows of classes
# What is set otherwise than by default, as the authors have it:
REFINED = {
    "initializer_bias_prior_prob": 0.01,  # of each class at the start: 1 / (1 + K) is much where classes are few
    "freeze_backbone_batch_norms": False,  # which is for weights learned before
    "tie_word_embeddings": False,  # each layer of the decoder has heads of its own
}


class Detr(nn.Module):
    """uint8 `[B, C, H, W]` -> float32 `[B, Q, 4 + K]`: boxes x1, y1, x2, y2 in pixels of the input, then logits of the classes."""

    def __init__(self, spec: InputSpec, row: Row, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(spec)
        self.network = self._network(row, classes)
        self.parts = FAMILIES[row.family].losses
        queries = self.network.config.num_queries
        self.factor = enlarged(padded(spec.size), self.strides, queries)
        self.least = narrowest(self.factor, self.strides, queries, self.multiple)

    @property
    def multiple(self) -> int:
        """Of which the sides of the network's input must be."""
        return MULTIPLE

    def _network(self, row: Row, classes: int) -> Any:
        """transformers' module with fresh weights."""
        network = library(row, "ForObjectDetection", {"num_labels": classes, **REFINED})
        del network.class_embed, network.bbox_embed  # copies that nothing uses: the decoder has its own
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()  # to 1, as the authors' start: transformers draws them about 0 in parts of RT-DETR
        network.model.enc_score_head.register_forward_hook(ranked)
        return network

    @property
    def finest(self) -> nn.Module:
        """The module that gives the finest map, `[B, F, h, w]`."""
        found: nn.Module = self.network.model.encoder.fpn_blocks[-1]
        return found

    @property
    def strides(self) -> Sequence[int]:
        """Of the maps among whose places queries are chosen."""
        found: Sequence[int] = self.network.config.feat_strides
        return found

    def losses(self, batch: Batch) -> Losses:
        """transformers' own, times the images: it averages inside, over the objects of all of them. Crowds are background to it."""
        images = self._framed(batch.images)
        try:
            found: dict[str, Tensor] = self.network(self._prepared(images), labels=self._targets(batch, images)).loss_dict
        except ValueError as error:
            if "boxes1 must be in" not in str(error):
                raise
            # How it refuses boxes that are no numbers: the loop finds out what has made them.
            nothing = next(self.network.parameters()).sum() * math.nan
            return Losses(nothing, float(len(batch)), dict.fromkeys(self.parts, nothing))
        parts = {}
        for kind, weighed in self.parts.items():
            summed = torch.stack([value.sum() for name, value in found.items() if f"{name}_".startswith(f"loss_{kind}_")]).sum()
            parts[kind] = summed * len(batch) * (getattr(self.network.config, weighed) if weighed else 1)
        return Losses(torch.stack(list(parts.values())).sum(), float(len(batch)), parts)

    def _targets(self, batch: Batch, images: Tensor) -> list[dict[str, Tensor]]:
        """What the library's loss compares with, by image."""
        sides = torch.tensor(images.shape[:1:-1] * 2, device=images.device)
        targets = []
        for boxes, labels in zip(batch.targets["boxes"], batch.targets["labels"], strict=True):
            low, high = boxes[labels >= 0].split(2, 1)
            targets.append({"boxes": torch.cat([(low + high) / 2, high - low], 1) / sides, "class_labels": labels[labels >= 0]})
        return targets

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a state dict of this transformers or, as published files are, of an older one, by their names here."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        renamings = conversions.get_checkpoint_conversion_mapping(self.network.config.model_type)
        return hub.renamed(tensors, renamings, "network.")

    def forward(self, images: Tensor) -> Outputs:
        """As the class says."""
        images = self._framed(images)
        return places(self.network(self._prepared(images)), images)

    def _framed(self, images: Tensor) -> Tensor:
        """Padded at the right and at the bottom to what the network divides by, and to as many places as there are queries. Without a
        branch on the size, so that one graph of it serves all."""
        height, width = (torch.sym_max(side + -side % self.multiple, self.least) for side in images.shape[2:])
        room: Any = (0, width - images.shape[3], 0, height - images.shape[2])
        return F.pad(images, room, value=FILL)

    def _prepared(self, images: Tensor) -> Tensor:
        """Floats of three channels, enlarged where there would be fewer places than queries to choose from them."""
        normal: Tensor = self.normalize(images).expand(-1, 3, -1, -1)  # a grey image has three equal channels
        return normal if self.factor == 1 else F.interpolate(normal, scale_factor=float(self.factor), mode="bilinear")


@of_place
def ranked(head: nn.Module, given: Any, logits: Tensor) -> Tensor | None:
    """In evaluation, a hook of what scores the places `[B, P, K]` among which queries are chosen: `[B, P, 1]`, higher for those that are
    surer, and of those that are as sure, by steps, for the first.

    Places that look alike, as those of a plain background or of the padding do, are equally sure but for the last bits, which depend on
    the runtime and on what else is in the batch. By the scores themselves it would then be chance which of them are chosen, and as queries
    look at each other, all answers would differ with it.
    """
    if head.training:
        return None
    whole = torch.float64 if logits.device.type != "mps" else torch.float32  # in which all numbers up to P x STEPS x REACH are
    level = (logits.float().amax(-1, keepdim=True).clamp(-REACH, REACH) * STEPS).round().to(whole)
    return level * logits.shape[1] - torch.arange(logits.shape[1], device=logits.device, dtype=whole)[:, None]


def places(found: Any, images: Tensor) -> Tensor:
    """The library's answers for framed images as `Detr` gives them."""
    height, width = images.shape[2:]
    middle, extent = found.pred_boxes.float().split(2, 2)
    corners = torch.cat([middle - extent / 2, middle + extent / 2], 2)
    boxes = corners * torch.tensor([width, height, width, height], device=corners.device)
    return torch.cat([boxes, found.logits.float()], 2)


def enlarged(size: tuple[int, int], strides: Sequence[int], queries: int) -> int:
    """By how much inputs are enlarged so that the maps at `strides` of one of (height, width) have as many places as there are queries."""
    return next(factor for factor in itertools.count(1) if _places((factor * size[0], factor * size[1]), strides) >= queries)


def narrowest(factor: int, strides: Sequence[int], queries: int, multiple: int) -> int:
    """The shortest side, of a multiple, from which on all enlarged inputs have as many places as there are queries."""
    return next(side for side in itertools.count(multiple, multiple) if _places((factor * side,) * 2, strides) >= queries)


def _places(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def start_from_published(network: Detr, name: str, row: Row) -> dict[str, str]:
    """Fill a network with the weights of its row, fetched unless they were before; what tells of classes stays fresh where their number is
    another. Returns its row of the licence chain. Raises UserError naming the address where the file cannot be had or is another's."""
    file = hub.fill(network, name, row.repository, OF_CLASSES)
    return licenses.link(row.repository, license=row.license, source=f"{pretrained.HUB}/{row.repository}", file=file, data=pretrained.COCO)


def rebuild(card: Card, rows: Mapping[str, Row], elements: int | None = None) -> Detr:
    """The module that a card describes, with fresh weights; raises UserError for one of more than `elements` numbers."""
    name = card.architecture.get("name")
    known = isinstance(name, str) and name in rows and card.architecture.get("nms") in (False, *WAYS)
    wanted = architecture(str(name), classes=len(card.classes), channels=card.input.channels)
    if not known or dict(card.architecture) | {"nms": False} != wanted:
        raise UserError("not the architecture of a detector of transformers", where="card", fix="the file was put together wrongly")
    if card.input.resize != "fit" or not 1 <= len(card.classes) <= MOST_CLASSES or card.input.channels not in (1, 3):
        raise UserError(f"a detector has 1 to {MOST_CLASSES} classes, and images that are fitted whole", where="card")
    check(str(name))
    row = rows[str(name)]
    if elements is not None:
        with torch.device("meta"):
            needed = sum(value.numel() for value in built(card.input, row, len(card.classes)).state_dict().values())
        if needed > elements:
            raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return built(card.input, row, len(card.classes))


def built(spec: InputSpec, row: Row, classes: int) -> Detr:
    """The network of a row, with fresh weights."""
    from saccade.objects import deimv2, rf_detr

    kinds = {"deimv2": deimv2.Deimv2, "rf_detr": rf_detr.RfDetr}
    return kinds.get(row.family, Detr)(spec, row, classes)


def library(row: Row, kind: str, settings: Mapping[str, Any]) -> Any:
    """transformers' module of a `kind` ("ForObjectDetection"), with fresh weights; settings: of its configuration, beside the row's."""
    folder, begin = f"transformers.models.{row.family}", FAMILIES[row.family].begin
    config = getattr(importlib.import_module(f"{folder}.configuration_{row.family}"), f"{begin}Config")
    network = getattr(importlib.import_module(f"{folder}.modeling_{row.family}"), f"{begin}{kind}")
    return network(config(backbone_config=dict(row.backbone), **settings, **row.settings))
