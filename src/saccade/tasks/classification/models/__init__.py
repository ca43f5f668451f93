"""The models that classify, by name: our own first, then timm's, read from `table.json` (`scripts/model_table.py` writes it). No torch, no timm."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from saccade.core.errors import unknown
from saccade.task import ModelRow

OWN: tuple[ModelRow, ...] = (ModelRow("small_resnet", "saccade", 0),)


@lru_cache(maxsize=1)
def rows() -> tuple[ModelRow, ...]:
    """All models that can be built. `parameters` counts timm's with 1000 classes and three channels."""
    table = json.loads(files(__package__).joinpath("table.json").read_text(encoding="utf-8"))
    return OWN + tuple(ModelRow(r["name"], "timm", r["parameters"], r["license"], r["metric"]) for r in table["models"])


def find(name: str) -> ModelRow:
    """The row of `name`; timm's tags (`resnet50.a1_in1k`) are those of their architecture. Raises UserError with the nearest names."""
    table = {row.name: row for row in rows()}
    row = table.get(name) or table.get(name.partition(".")[0])
    if row is None:
        raise unknown("model", name, table, where="--model")
    return row


def own(name: str, *, classes: int, channels: int, size: tuple[int, int]) -> dict[str, Any]:
    """The architecture of one of our networks for images of `size`: plain JSON that rebuilds it."""
    side = max(size)
    stride = 1 if side <= 48 else 2 if side <= 160 else 4
    return {"source": "saccade", "name": name, "arguments": {"classes": classes, "channels": channels, "stem_stride": stride, "width": 32, "blocks": [1, 1, 1]}}
