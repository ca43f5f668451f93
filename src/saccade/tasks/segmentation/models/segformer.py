"""SegFormer of transformers: its names in files of other versions, and its published weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from saccade.core import licenses
from saccade.core.modelfile import Buffer
from saccade.nn import hub, pretrained
from saccade.tasks.segmentation.models.library import Library
from saccade.tasks.segmentation.models.segformer_rows import LICENSE, ROWS

OF_CLASSES = ("decode_head.classifier.",)  # in the names of tensors that have rows of classes


class Segformer(Library):
    """A `Library` that knows what its tensors are called elsewhere."""

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a state dict of this transformers or, as published files are, of an older one, by their names here."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        kinds = ("SegformerModel", "SegformerForSemanticSegmentation")
        renamings = [one for kind in kinds for one in conversions.get_checkpoint_conversion_mapping(kind) or ()]
        return hub.renamed(tensors, renamings, "network.")


def start_from_published(network: Segformer, name: str) -> dict[str, str]:
    """Fill a network with the weights of its row, fetched unless they were before; what tells of classes stays fresh where their number is
    another. Returns its row of the licence chain. Raises UserError naming the address where the file cannot be had or is another's."""
    repository = ROWS[name].repository
    file = hub.fill(network, name, repository, OF_CLASSES)
    return licenses.link(repository, license=LICENSE, source=f"{pretrained.HUB}/{repository}", file=file, data="ADE20K")
