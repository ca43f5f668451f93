"""Mask2Former and EoMT of some ten thousand parameters, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import saccade
from saccade.api.sets import as_the_model_sees, read_split
from saccade.core import finish
from saccade.core.progress import Silent
from saccade.data.opening import open_dataset
from saccade.queries import criterion
from saccade.queries.rows import ROWS, Row
from saccade.tasks import room

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_BACKBONE = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4,
             "drop_path_rate": 0.1, "out_features": _STAGES}  # fmt: skip
_DECODER = {"feature_size": 64, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 2, "encoder_layers": 1,
            "decoder_layers": 4, "encoder_feedforward_dim": 32, "dim_feedforward": 32, "num_queries": 12}  # fmt: skip
_VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_blocks": 2, "image_size": 64, "num_queries": 12}
TINY = {
    "mask2former_swin_tiny": {"backbone_config": _BACKBONE, **_DECODER},
    "eomt_large": {**_VIT, "layerscale_value": 1.0},
    "eomt_dinov3_large": {**_VIT, "intermediate_size": 64},
}


def shrink(table: dict[str, Row]) -> dict[str, Row]:
    """A table with these in place of their names' own sizes."""
    return {name: replace(row, settings=TINY.get(name, row.settings)) for name, row in table.items()}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of these names' own sizes, learning at few points."""
    monkeypatch.setattr(criterion, "POINTS", 500)
    for task, table in ROWS.items():
        monkeypatch.setitem(ROWS, task, shrink(table))


def figures_by_batch(run: Path, data: Path) -> list[dict[str, float | None]]:
    """What a run's model reaches on validation images of one shape, asked by 1, 3 and 8 at once."""
    model = saccade.load(run)
    dataset = open_dataset(data, task=model.card.task)
    split, _ = read_split(dataset, "val", as_the_model_sees(model.card.input), skip_bad=False, progress=Silent(), workers=1)
    (batch,) = split.batches(8)
    images, truths, names, sizes = batch
    found = []
    for count in (1, 3, 8):
        metric = room(model.card.task).metrics(model.card)
        for first in range(0, len(images), count):
            part = slice(first, first + count)
            outputs = model.session("fp32").run(images[part])
            metric.update(finish.results(outputs, model.card, sizes[part], names[part], complete=True), truths[part])
        found.append(metric.compute())
    return found
