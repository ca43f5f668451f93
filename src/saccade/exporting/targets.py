"""The targets: one row and one file each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from saccade.core.errors import UserError, unknown
from saccade.exporting.graph import Graph
from saccade.prediction.opening import require

TARGETS = {
    "onnx": "saccade.exporting.onnx",
    "openvino": "saccade.exporting.openvino",
}
PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Written:
    """files: name -> content, the one that is opened first; dynamic: the axes of the input that may vary."""

    files: dict[str, bytes]
    dynamic: Sequence[str]


def check(target: str, precision: str) -> None:
    """Raise UserError for a target or precision that is not known, or whose runtime is not installed."""
    if target not in TARGETS:
        raise unknown("target", target, TARGETS, where="--to")
    if precision not in PRECISIONS:
        raise UserError(f"an export's precision must be {' or '.join(PRECISIONS)}, got {precision!r}", where="--precision")
    require(target)


def write(target: str, graph: Graph, precision: str) -> Written:
    """The files of an export; raises UserError where the network cannot be exported."""
    files, dynamic = importlib.import_module(TARGETS[target]).write(graph, precision)
    return Written(files, dynamic)
