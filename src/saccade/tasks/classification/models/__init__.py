"""The models that classify, by name: our own first, then timm's and torchvision's, from `table.json` (`scripts/model_table.py` writes it).

Neither torch nor timm is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from saccade.core.errors import unknown
from saccade.task import ModelRow
from saccade.tasks.classification.models import hf_rows

# Ours, each named by the pictures it was made for; all of them take any size. width, blocks by stage, stride of the stem, parameters
# (1000 classes, three channels; a test holds them true).
_OWN: dict[str, tuple[int, tuple[int, ...], int, int]] = {
    "small_resnet_8px": (32, (1, 1, 1), 1, 436_360),
    "small_resnet_28px": (48, (1, 1, 1), 2, 885_208),
    "small_resnet_32px": (48, (0, 1, 1, 1), 1, 3_099_928),
    "small_resnet_128px": (48, (1, 1, 1, 1), 4, 3_147_352),
}
# Of the literature, for weights that others have trained: channels, blocks (0: LeNet), side of the pictures they learned from; parameters
# and operations, counted as those of the libraries.
_CLASSIC: dict[str, tuple[int, int, int, int, int]] = {
    "cifar_resnet20": (3, 3, 32, 334_072, 81_228_800),
    "cifar_resnet32": (3, 5, 32, 528_504, 137_851_904),
    "cifar_resnet44": (3, 7, 32, 722_936, 194_475_008),
    "cifar_resnet56": (3, 9, 32, 917_368, 251_098_112),
    "cifar_resnet110": (3, 18, 32, 1_792_312, 505_902_080),
    "lenet5": (1, 0, 28, 146_156, 1_469_760),
}
TORCHVISION = "torchvision/"
OWN = (
    *(ModelRow(name, "saccade", parameters) for name, (*_, parameters) in _OWN.items()),
    *(ModelRow(name, "saccade", count, size=(side, side), flops=flops) for name, (_, _, side, count, flops) in _CLASSIC.items()),
)
IMAGENET = "ImageNet-1k"


@lru_cache(maxsize=1)
def _table() -> Sequence[Mapping[str, Any]]:
    """The rows of the libraries' models."""
    found: Sequence[Mapping[str, Any]] = json.loads(files(__package__).joinpath("table.json").read_text(encoding="utf-8"))["models"]
    return found


def measured(name: str) -> float | None:
    """Accuracy on ImageNet-1k of a set of weights of timm's, `name.tag`, at the size of their own input; None where timm publishes none."""
    network, _, tag = name.partition(".")
    figures: Mapping[str, float] = next((row.get("tags", {}) for row in _table() if row["name"] == network), {})
    return figures.get(tag)


@lru_cache(maxsize=1)
def rows() -> tuple[ModelRow, ...]:
    """All models that can be built. `parameters` counts the libraries' with 1000 classes and three channels."""
    theirs = tuple(
        ModelRow(f"{hf_rows.PREFIX}{name}", "transformers", one.parameters, one.license, size=hf_rows.SIZE, flops=one.flops, weights=name)
        for name, one in hf_rows.ROWS.items()
    )
    libraries = tuple(
        ModelRow(
            name := r["name"],
            "torchvision" if name.startswith(TORCHVISION) else "timm",
            r["parameters"],
            r["license"],
            r["metric"],
            IMAGENET if r["metric"] is not None else "",
            (r["size"][0], r["size"][1]),
            r["flops"] or 0,
            r.get("file", ""),
        )
        for r in _table()
    )
    return OWN + theirs + libraries


def find(name: str) -> ModelRow:
    """The row of `name`; tags (`resnet50.a1_in1k`, `torchvision/resnet50.IMAGENET1K_V1`) are sets of weights of it. Raises UserError with
    the nearest names."""
    table = {row.name: row for row in rows()}
    if name.startswith(hf_rows.PREFIX):  # any repository: its configuration says what it is
        hf_rows.check(name)
        return table.get(name) or ModelRow(name, "transformers", 0)
    row = table.get(name) or table.get(name.partition(".")[0])
    if row is None:
        raise unknown("model", name, table, where="--model")
    return row


def is_own(name: str) -> bool:
    """Whether a model is one of ours, with recipes of its own."""
    return name in _OWN


def is_small(name: str) -> bool:
    """Whether a model is built here, of few layers: ours, and those of the literature for small pictures."""
    return name in _OWN or name in _CLASSIC


def own(name: str, *, classes: int, channels: int) -> dict[str, Any]:
    """The architecture of one of ours: plain JSON that rebuilds it."""
    if name in _CLASSIC:
        blocks = _CLASSIC[name][1]
        arguments: dict[str, Any] = {"classes": classes, "channels": channels, **({"blocks": blocks} if blocks else {})}
        return {"source": "saccade", "name": name, "arguments": arguments}
    width, stages, stride, _ = _OWN[name]
    arguments = {"classes": classes, "channels": channels, "width": width, "blocks": list(stages), "stem_stride": stride}
    return {"source": "saccade", "name": name, "arguments": arguments}
