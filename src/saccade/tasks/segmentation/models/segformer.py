"""SegFormer of transformers: its names in files of other versions, and its published weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from saccade.core import licenses, modelfile
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.nn import pretrained, weights
from saccade.tasks.segmentation.models.library import Library
from saccade.tasks.segmentation.models.segformer_rows import LICENSE, ROWS

OF_CLASSES = "decode_head.classifier."  # in the names of tensors that have rows of classes


class Segformer(Library):
    """A `Library` that knows what its tensors are called elsewhere."""

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a state dict of this transformers or, as published files are, of an older one, by their names here."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        kinds = ("SegformerModel", "SegformerForSemanticSegmentation")
        renamings = [one for kind in kinds for one in conversions.get_checkpoint_conversion_mapping(kind) or ()]
        found = {}
        for old, tensor in tensors.items():
            name = old
            for renaming in renamings:
                name, _ = renaming.rename_source_key(name)
            found[f"network.{name}"] = tensor
        return found


def start_from_published(network: Segformer, name: str) -> dict[str, str]:
    """Fill a network with the weights of its row, fetched unless they were before; what tells of classes stays fresh where their number is
    another. Returns its row of the licence chain. Raises UserError naming the address where the file cannot be had or is another's."""
    repository = ROWS[name].repository
    file = pretrained.from_hub(name, repository)
    tensors, _ = modelfile.unpack(file.read_bytes(), where=str(file))
    report = weights.load_matching(network, network.translated(tensors))
    missing = [key for key in report.missing if not key.endswith("num_batches_tracked")]
    if missing or any(OF_CLASSES not in text for text in report.other):
        raise UserError(f"the weights of {repository} do not fit {name}: {report}", where=str(file), fix="pip install -U transformers")
    return licenses.link(repository, license=LICENSE, source=f"{pretrained.HUB}/{repository}", file=file, data="ADE20K")
