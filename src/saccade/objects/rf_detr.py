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

from saccade.core.card import InputSpec
from saccade.core.modelfile import Buffer
from saccade.nn import hub
from saccade.objects.detr import Detr, library
from saccade.objects.detr_rows import Row

FUSED = {"self_attn.in_proj_": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")}


class RfDetr(Detr):
    """See `Detr`."""

    def __init__(self, spec: InputSpec, row: Row, classes: int) -> None:
        super().__init__(spec, row, classes)
        config = self.network.config.backbone_config
        self.multiple = config.patch_size * config.num_windows

    def _network(self, row: Row, classes: int) -> Any:
        network = library(row, "ForObjectDetection", num_labels=classes)
        embeddings = network.model.backbone.backbone.embeddings
        embeddings.window_partition = MethodType(_windows, embeddings)
        return network

    @property
    def finest(self) -> nn.Module:
        """The module that gives the only map, `[B, F, h, w]`."""
        found: nn.Module = self.network.model.backbone.projector
        return found

    @property
    def strides(self) -> Sequence[int]:
        """Of the map among whose places queries are chosen."""
        return (int(self.network.config.backbone_config.patch_size),)

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a file of the authors', or of transformers', by their names here."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        renamings = [one for one in conversions.get_checkpoint_conversion_mapping("RfDetrModel") if len(one.target_patterns) == 1]
        named = hub.parted(hub.renamed(tensors, renamings, ""), FUSED)
        heads = ("model.", "class_embed.", "bbox_embed.")
        return {f"network.{name}" if name.startswith(heads) else f"network.model.{name}": tensor for name, tensor in named.items()}


def _windows(self: Any, embeddings: Tensor, height: int, width: int) -> Tensor:
    """Of an image of height x width, `[B, 1 + P, F]` with a class token and the patches by rows, `[B * N * N, 1 + P / (N * N), F]` with one
    for each of N x N windows, by rows too."""
    count, across = self.config.num_windows, width // self.patch_size
    whole, patches = embeddings[:, :1], embeddings[:, 1:]
    parts = patches.reshape(len(embeddings), count, height // self.patch_size // count, count, across // count, -1)
    parts = parts.transpose(2, 3).reshape(len(embeddings) * count**2, -1, embeddings.shape[2])
    return torch.cat([whole.repeat_interleave(count**2, 0), parts], 1)
