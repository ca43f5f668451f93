"""RF-DETR (Robinson et al. 2025, "Neural Architecture Search for Real-Time Detection Transformers"), and the names in its authors' files.

Most layers of its backbone look at windows of the image, of which it has as many across as down, so that both sides must be a multiple of
the windows' number. transformers, like the authors, cuts images that are not square into windows that mix far places, and puts the map
together again in another order; here each window is a part of the image. Of squares, all that they have learned from, both are the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.card import InputSpec
from saccade.core.geometry import CONIC
from saccade.core.modelfile import Buffer
from saccade.data.loader import Batch
from saccade.nn import hub
from saccade.objects.detr import Detr, library, places, ranked
from saccade.objects.detr_rows import Row
from saccade.task import Outputs

FUSED = {"self_attn.in_proj_": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")}
OF_BOXES = ("class_embed.", "bbox_embed.")  # how names begin in the part that finds boxes, beside that of its backbone and decoder
OF_MASKS = ("blocks.", "spatial_features_proj.", "query_features_", "segmentation_bias")
MASKS = {"mask_ce": "mask_class_loss_coefficient", "mask_dice": "mask_dice_loss_coefficient"}  # parts of the loss
HALF = 128  # 255ths of a cell from which it is covered


class RfDetr(Detr):
    """See `Detr`; of a row with masks the outputs are those of `objects.decode.decode` with prototypes."""

    def __init__(self, spec: InputSpec, row: Row, classes: int) -> None:
        super().__init__(spec, row, classes)
        if row.masks:
            self.parts = {**self.parts, **MASKS}

    @property
    def multiple(self) -> int:
        """Of which the sides of the network's input must be."""
        config = self.network.config.backbone_config
        return int(config.patch_size * config.num_windows)

    def _network(self, row: Row, classes: int) -> Any:
        network = library(row, "ForInstanceSegmentation" if row.masks else "ForObjectDetection", {"num_labels": classes})
        embeddings = _inner(network).backbone.backbone.embeddings
        embeddings.window_partition = MethodType(_windows, embeddings)
        for head in _inner(network).enc_out_class_embed:
            head.register_forward_hook(ranked)
        return network

    @property
    def finest(self) -> nn.Module:
        """The module that gives the only map, `[B, F, h, w]`."""
        found: nn.Module = _inner(self.network).backbone.projector
        return found

    @property
    def strides(self) -> Sequence[int]:
        """Of the map among whose places queries are chosen."""
        return (int(self.network.config.backbone_config.patch_size),)

    def _targets(self, batch: Batch, images: Tensor) -> list[dict[str, Tensor]]:
        targets = super()._targets(batch, images)
        if "masks" in batch.targets:
            masks = batch.targets["masks"]
            cell = batch.images.shape[2] // masks.shape[2]
            down, across = (side // cell - length for side, length in zip(images.shape[2:], masks.shape[2:], strict=True))
            covered = F.pad(masks, (0, across, 0, down)) >= HALF
            for target, own, labels in zip(targets, covered, batch.targets["labels"], strict=True):
                target["masks"] = own[labels >= 0].float()
        return targets

    def forward(self, images: Tensor) -> Outputs:
        """As the class says."""
        if "mask_ce" not in self.parts:
            return super().forward(images)
        images = self._framed(images)
        prepared, network = self._prepared(images), self.network
        found = network.model(prepared)
        ratio = network.downsample_ratio
        maps = F.interpolate(found.backbone_features, size=[side // ratio for side in prepared.shape[2:]], mode="bilinear")
        for block in network.blocks:
            maps = block(maps)
        prototypes = F.avg_pool2d(network.spatial_features_proj(maps).float(), self.factor)
        weights = network.query_features_proj(network.query_features_block(found.last_hidden_state)).float()
        about = F.pad(network.segmentation_bias.float().expand(*weights.shape[:2], 1), (0, CONIC - 1))
        return torch.cat([places(found, images), about, weights], 2), prototypes

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a file of the authors', or of transformers', by their names here."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        renamings = conversions.get_checkpoint_conversion_mapping("RfDetrModel")
        masks = conversions.get_checkpoint_conversion_mapping("RfDetrForInstanceSegmentation")
        renamings = [*(one for one in renamings if len(one.target_patterns) == 1), *masks[1:]]  # the first adds what `_place` adds
        named = hub.parted(hub.renamed(tensors, renamings, ""), FUSED)
        return {self._place(name): tensor for name, tensor in named.items()}

    def _place(self, name: str) -> str:
        """Where a tensor lies in this network, of which the file has the innermost part, or all."""
        if name.startswith(("model.", *OF_MASKS)):
            return f"network.{name}"
        finder = "network.model." if "mask_ce" in self.parts else "network."
        return f"{finder}{name}" if name.startswith(OF_BOXES) else f"{finder}model.{name}"


def _inner(network: Any) -> Any:
    """Backbone and decoder, without what makes boxes and masks of their answers."""
    return network.model.model if hasattr(network, "segmentation_bias") else network.model


def _windows(self: Any, embeddings: Tensor, height: int, width: int) -> Tensor:
    """Of an image of height x width, `[B, 1 + P, F]` with a class token and the patches by rows, `[B * N * N, 1 + P / (N * N), F]` with one
    for each of N x N windows, by rows too."""
    count, across = self.config.num_windows, width // self.patch_size
    whole, patches = embeddings[:, :1], embeddings[:, 1:]
    parts = patches.reshape(embeddings.shape[0], count, height // self.patch_size // count, count, across // count, -1)
    parts = parts.transpose(2, 3).reshape(embeddings.shape[0] * count**2, -1, embeddings.shape[2])
    return torch.cat([whole.repeat_interleave(count**2, 0), parts], 1)
