"""The models that classify, by name: our own first, then timm's, from `table.json` (`scripts/model_table.py` writes it).

Neither torch nor timm is imported here.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from saccade.core.errors import unknown
from saccade.task import ModelRow

# Ours, each named by the pictures it was made for; all of them take any size. width, blocks by stage, stride of the stem, parameters
# (1000 classes, three channels; a test holds them true).
_OWN: dict[str, tuple[int, tuple[int, ...], int, int]] = {
    "small_resnet_8px": (32, (1, 1, 1), 1, 436_360),
    "small_resnet_28px": (48, (1, 1, 1), 2, 885_208),
    "small_resnet_32px": (48, (0, 1, 1, 1), 1, 3_099_928),
    "small_resnet_128px": (48, (1, 1, 1, 1), 4, 3_147_352),
}
OWN = tuple(ModelRow(name, "saccade", parameters) for name, (*_, parameters) in _OWN.items())


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


def is_own(name: str) -> bool:
    """Whether a model is one of ours."""
    return name in _OWN


def own(name: str, *, classes: int, channels: int) -> dict[str, Any]:
    """The architecture of one of ours: plain JSON that rebuilds it."""
    width, blocks, stride, _ = _OWN[name]
    arguments = {"classes": classes, "channels": channels, "width": width, "blocks": list(blocks), "stem_stride": stride}
    return {"source": "saccade", "name": name, "arguments": arguments}
