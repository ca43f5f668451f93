"""Writes what the rooms' tables tell of operations: of networks that find objects, tell segments, or segment (some minutes on one core):

    .venv/bin/python scripts/operations.py

Each is built as its room builds it, on torch's meta device, which allocates nothing, and run once at the size of its row. Of torchvision's
detectors all is counted but the choice of boxes, which depends on what is seen: those that look at proposals again look at as many as they
take, and draw OBJECTS masks.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.core.config import TrainConfig
from saccade.data.sample import Schema
from saccade.objects.library import Library
from saccade.queries.network import Queries
from saccade.task import ModelRow
from saccade.tasks import room

ROOMS = Path(__file__).parents[1] / "src/saccade/tasks"
FOLDERS = {"detect": "detection", "instances": "instances", "panoptic": "panoptic", "segment": "segmentation"}
CLASSES = {"detect": 80, "instances": 80, "panoptic": 133, "segment": 21}  # what the rows' parameters are counted with
OF_COCO = 90  # torchvision's, which has holes in its numbers
OBJECTS = 100  # as many as torchvision's own tell of an image
LIBRARIES = ("torch", "torchvision", "transformers")


@torch.no_grad()
def operations(task: str, row: ModelRow) -> int:
    """Of one image of the row's size, two to a multiplication with addition."""
    if row.size is None:
        raise ValueError(f"{row.name} has no size")
    count = OF_COCO if row.source == "torchvision" and task != "segment" else CLASSES[task]
    schema = Schema(task, tuple(map(str, range(count))), {}, 3, row.size, uniform=True)
    with torch.device("meta"):
        made: Any = room(task).create(TrainConfig(task=task, model=row.name, size=row.size), schema)[0]
    network = made.requires_grad_(False).eval().to("meta")  # the counter wants no gradients; some parameters are made elsewhere
    if isinstance(network, Queries) and network.shares is not None:
        network.network.attn_mask_probs = torch.zeros(network.shares.shape)  # no masks in attention, as once it has learned
    run = _all_of(network) if isinstance(network, Library) else network
    with FlopCounterMode(display=False) as counter, _unchecked(network):
        run(torch.zeros(1, 3, *row.size, dtype=torch.uint8, device="meta"))
    return int(counter.get_total_flops())


@contextlib.contextmanager
def _unchecked(network: nn.Module) -> Iterator[None]:
    """Within, networks of transformers do not look at numbers, to see whether shapes fit."""
    with contextlib.ExitStack() as stack:
        for name in {type(part).__module__ for part in network.modules()}:
            if name.startswith("transformers.") and hasattr(sys.modules[name], "torch_compilable_check"):
                stack.enter_context(mock.patch.object(sys.modules[name], "torch_compilable_check", return_value=None))
        yield


class _Pooled(nn.Module):
    """In place of what cuts boxes out of maps, which counts as nothing."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], shapes: Any) -> Tensor:
        """`[N, F, h, w]` of the N boxes of an image."""
        first = next(iter(maps.values()))
        return first.new_zeros(len(boxes[0]), first.shape[1], *self.size)


def _all_of(network: Library) -> Callable[[Tensor], Any]:
    """One of torchvision's detectors with as many boxes as it takes, whatever they are."""
    detector = network.network

    def none(*shape: int, kind: torch.dtype = torch.float32) -> list[Tensor]:
        return [torch.zeros(shape, dtype=kind, device="meta")]

    if hasattr(detector, "roi_heads"):
        boxes, heads = detector.rpn.post_nms_top_n(), detector.roi_heads
        detector.rpn.filter_proposals = lambda *_: (none(boxes, 4), none(boxes))
        heads.postprocess_detections = lambda *_: (none(OBJECTS, 4), none(OBJECTS), none(OBJECTS, kind=torch.int64))
        heads.box_roi_pool = _Pooled(heads.box_roi_pool.output_size)
        if heads.has_mask():
            heads.mask_roi_pool = _Pooled(heads.mask_roi_pool.output_size)
    else:
        detector.postprocess_detections = lambda *_: []
    return lambda images: detector(network._prepared(images))


def main() -> None:
    """A file for each room, one row a line, so that a new version shows as a small difference."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    header = {name: version(name).partition("+")[0] for name in LIBRARIES}
    for task, folder in FOLDERS.items():
        rows = [f"{json.dumps(row.name)}:{operations(task, row)}" for row in room(task).models()]
        lines = ",\n".join(rows)
        (ROOMS / folder / "models/table.json").write_text(f'{{"header":{json.dumps(header)},"flops":{{\n{lines}\n}}}}\n', encoding="utf-8")
        sys.stdout.write(f"{len(rows)} models of {task}\n")


if __name__ == "__main__":
    main()
