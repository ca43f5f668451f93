"""The models that detect, by name: one row each. Neither torch nor timm is imported here."""

from __future__ import annotations

from typing import Any

from saccade.core.errors import unknown
from saccade.task import ModelRow

# Ours, for any size: widths and blocks of the stages at a 4th, 8th, 16th and 32nd of the input, width of neck and head, parameters (80
# classes, three channels; a test holds them true).
_OWN: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int]] = {
    "small_detector": ((32, 64, 128, 192), (1, 1, 2, 1), 64, 1_590_944),
}


def rows() -> tuple[ModelRow, ...]:
    """All models that can be built."""
    return tuple(ModelRow(name, "saccade", parameters) for name, (*_, parameters) in _OWN.items())


def find(name: str) -> ModelRow:
    """The row of `name`; raises UserError with the nearest names."""
    table = {row.name: row for row in rows()}
    if name not in table:
        raise unknown("model", name, table, where="--model")
    return table[name]


def own(name: str, *, classes: int, channels: int) -> dict[str, Any]:
    """The architecture of one of ours: plain JSON that rebuilds it."""
    widths, blocks, head, _ = _OWN[name]
    arguments = {"classes": classes, "channels": channels, "widths": list(widths), "blocks": list(blocks), "head": head}
    return {"source": "saccade", "name": name, "arguments": arguments}
