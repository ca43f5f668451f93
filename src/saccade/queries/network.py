"""transformers' Mask2Former and EoMT for images of any size, and their published weights.

EoMT is built for one size by transformers; here its blocks are run for the grid of patches that an image has. The positions that a DINOv2
has learned are resampled to it, bicubically, as its authors do where they train at another size; a DINOv3's follow from the grid.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.geometry import FILL, MULTIPLE
from saccade.core.modelfile import Buffer
from saccade.nn import hub
from saccade.nn.layers.normalize import Normalize
from saccade.queries import rows
from saccade.queries.criterion import Answers
from saccade.task import Phase

OF_CLASSES = ("class_predictor.",)  # in the names of tensors that have rows of classes
POWER = 0.9  # by which the masks of EoMT's attention go, as its authors have it
MOST_CLASSES = 100_000


class Queries(nn.Module):
    """uint8 `[B, C, H, W]` -> `Answers` by layers. A grey image has three equal channels; sides that are no multiples of 32 are padded."""

    def __init__(self, spec: InputSpec, task: str, name: str, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(spec)
        self.network: Any = _network(rows.ROWS[task][name], classes)
        self.network.class_predictor.last_is_nothing = True
        self.masked = (False,) * len(self.shares) if self.shares is not None else ()

    @property
    def shares(self) -> Tensor | None:
        """Of EoMT: of each of the last blocks how many of its queries attend to no more than their own masks, 0..1, `[blocks]`. None for
        Mask2Former, whose queries always do."""
        found: Tensor | None = getattr(self.network, "attn_mask_probs", None)
        return found

    @property
    def finest(self) -> nn.Module:
        """The module that gives the finest map, `[B, F, h, w]`, of which masks are made."""
        found: nn.Module = (
            self.network.model.pixel_level_module.decoder.mask_projection if self.shares is None else self.network.upscale_block
        )
        return found

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a state dict of this transformers or, as published files are, of an older one, by their names here."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        return hub.renamed(tensors, conversions.get_model_conversion_mapping(self.network), "network.")

    def layers(self, images: Tensor) -> list[Answers]:
        """The answers after each layer that is learned from, in training, the last of them last; else at least that."""
        height, width = images.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            images = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=FILL)
        pixels = self.normalize(images).expand(-1, 3, -1, -1)
        return self._mask2former(pixels) if self.shares is None else self._eomt(pixels)

    def _mask2former(self, pixels: Tensor) -> list[Answers]:
        found = self.network(pixels, output_auxiliary_logits=True)
        before = [Answers(one["class_queries_logits"], one["masks_queries_logits"]) for one in found.auxiliary_logits]
        return [*before, Answers(found.class_queries_logits, found.masks_queries_logits)]

    def _eomt(self, pixels: Tensor) -> list[Answers]:
        network, found = self.network, list[Answers]()
        hidden, grid, around = self._embedded(pixels)
        masked = self._masked()
        first = len(network.layers) - len(masked)
        for number, layer in enumerate(network.layers):
            if number == first:
                hidden = torch.cat([network.query.weight.expand(hidden.shape[0], -1, -1), hidden], 1)
            seen = None
            if number >= first and masked[number - first]:
                found.append(self._told(hidden, grid))
                seen = self._seen(found[-1].masks.detach(), grid, hidden.shape[1], self.shares[number - first])  # type: ignore[index]
            hidden = layer(hidden, attention_mask=seen, **around)
        return [*found, self._told(hidden, grid)]

    def _embedded(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """Tokens `[B, S, F]`, those of patches last, the (rows, columns) of these, and what else each layer takes."""
        network, embeddings = self.network, self.network.embeddings
        side = network.config.patch_size
        grid = pixels.shape[2] // side, pixels.shape[3] // side
        if hasattr(network, "rope_embeddings"):
            return network.dropout(embeddings(pixels)), grid, {"position_embeddings": network.rope_embeddings(pixels)}
        learned = network.config.image_size // side
        places = embeddings.position_embeddings.weight
        if grid != (learned, learned):
            square = places.view(1, learned, learned, -1).permute(0, 3, 1, 2)
            places = F.interpolate(square, size=grid, mode="bicubic", align_corners=False).flatten(2)[0].T
        patches = embeddings.patch_embeddings(pixels) + places
        others = (embeddings.cls_token, embeddings.register_tokens)
        return torch.cat([*(token.expand(pixels.shape[0], -1, -1) for token in others), patches], 1), grid, {}

    def _told(self, hidden: Tensor, grid: tuple[int, int]) -> Answers:
        network = self.network
        told = network.layernorm(hidden)
        queries = told[:, : network.config.num_queries]
        places = told[:, network.config.num_queries + network.embeddings.num_prefix_tokens :]
        maps = network.upscale_block(places.transpose(1, 2).unflatten(2, grid))
        return Answers(network.class_predictor(queries), torch.einsum("bqc,bchw->bqhw", network.mask_head(queries), maps))

    def _masked(self) -> tuple[bool, ...]:
        """Of which of the last blocks the queries attend to no more than their masks: all in training, where chance decides for each query;
        else those where most do. Asked of the weights where these are numbers, and not while a graph is made of the network."""
        if self.training:
            return (True,) * len(self.masked)
        if not torch.compiler.is_compiling():
            self.masked = tuple(share > 0.5 for share in self.shares.tolist())  # type: ignore[union-attr]
        return self.masked

    def _seen(self, masks: Tensor, grid: tuple[int, int], tokens: int, share: Tensor) -> Tensor:
        """Which tokens see which, bool `[B, 1, S, S]`: queries see patches within their masks `[B, Q, h, w]` alone, all else is seen by
        all."""
        inside = (F.interpolate(masks, size=grid, mode="bilinear", align_corners=False) > 0).flatten(2)
        if self.training:
            inside = inside | (torch.rand(inside.shape[:2], device=masks.device) > share)[:, :, None]
        own = torch.cat([inside.new_ones(*inside.shape[:2], tokens - inside.shape[2]), inside], 2)
        rest = inside.new_ones(inside.shape[0], tokens - inside.shape[1], tokens)
        return torch.cat([own, rest], 1)[:, None]


def paced(phases: Sequence[Phase], network: nn.Module, config: TrainConfig) -> list[Phase]:
    """The phases of a room, by which the masks of EoMT's attention go one block after the other, from the first on, so that it needs none
    once it has learned ("mask annealing"); where it begins with weights that have, there are none to begin with."""
    shares = network.shares if isinstance(network, Queries) else None
    if shares is None or config.pretrained or config.weights:
        return list(phases)

    def anneal(before: Callable[[float], None] | None, done: float) -> None:
        """Each goes in one of the middle parts of the run, of which there are two more than blocks; before: what the phase does as well."""
        if before is not None:
            before(done)
        place = torch.arange(len(shares), device=shares.device)
        left = 1 - (done * (len(shares) + 2) - 1 - place).clamp(0, 1)
        shares.copy_(left**POWER)

    return [replace(phase, pace=partial(anneal, phase.pace)) for phase in phases]


def start_from_published(network: Queries, task: str, name: str) -> tuple[dict[str, str], ...]:
    """Fill a network with the weights of its row, fetched unless they were before; what tells of classes stays fresh where their number is
    another. Returns its licence chain. Raises UserError naming the address where the file cannot be had or is another's."""
    return rows.links(task, name, hub.fill(network, name, rows.ROWS[task][name].repository, OF_CLASSES))


def checked(card: Card, most: int = MOST_CLASSES) -> str:
    """The name of the network that a card describes; raises UserError for what is none."""
    name = card.architecture.get("name")
    known = {key: value for key, value in card.architecture.items() if key not in ("nms", "boxes")}
    if isinstance(name, str) and name not in rows.ROWS[card.task]:
        fix = "the model was made by another version of saccade"
        raise UserError(f"no network of transformers for {card.task} is called {name!r}", where="card", fix=fix)
    colours = card.input.channels in (1, 3)
    if not isinstance(name, str) or not colours or known != rows.architecture(name, len(card.classes), card.input.channels):
        raise UserError("not the architecture of a network of transformers", where="card", fix="the file was put together wrongly")
    if not 1 <= len(card.classes) <= most:
        raise UserError(f"must have 1 to {most} classes, was {len(card.classes)}", where="card")
    rows.check(name)
    return name


def rebuild(kind: type[Queries], card: Card, name: str, elements: int | None = None) -> Queries:
    """The module that a card describes, of a room's kind, with fresh weights; raises UserError for one of more than `elements` numbers."""
    classes = len(card.classes)
    if elements is not None:
        with torch.device("meta"):
            needed = sum(value.numel() for value in kind(card.input, card.task, name, classes).state_dict().values())
        if needed > elements:
            raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return kind(card.input, card.task, name, classes)


def _network(row: rows.Row, classes: int) -> Any:
    """transformers' module with fresh weights."""
    folder, begin = f"transformers.models.{row.family}", rows.FAMILIES[row.family]
    config = getattr(importlib.import_module(f"{folder}.configuration_{row.family}"), f"{begin}Config")
    kind = getattr(importlib.import_module(f"{folder}.modeling_{row.family}"), f"{begin}ForUniversalSegmentation")
    attention = {} if row.family == "mask2former" else {"attn_implementation": "sdpa"}  # which takes masks of bool
    settings = {**attention, **row.settings}
    backbone = settings.get("backbone_config")
    if backbone is not None:
        settings["backbone_config"] = importlib.import_module("transformers").AutoConfig.for_model(**backbone)
    network = kind(config(num_labels=classes, **settings))
    del network.criterion  # `queries.criterion` leaves out what does not count
    if backbone is not None:
        encoder = network.model.pixel_level_module.encoder
        encoder.set_attn_implementation("eager")  # torch cannot export the other with its windows
        encoder.swin.layernorm = nn.Identity()  # of what no map is made of; published files have none
    return network
