"""What a trained model is, as canonical JSON: the only metadata of a model file (law 2) and of every export."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from saccade.core.errors import UserError

MAX_CARD_BYTES = 4 << 20
LATER = ("ids", "stuff")  # which cards of models that have none do without


@dataclass(frozen=True)
class InputSpec:
    """How pixels become the model's input.

    The network takes uint8 `[B, channels, height, width]`: 1 grey, 3 RGB, 4 RGB premultiplied by alpha, and alpha. mean and std (per
    channel, of values in 0..1) are applied inside it. `resize` is what `core.prepare` does first: "crop" scales the shorter side to fit and
    cuts the middle out; "fit" scales the whole image to fit into `size` and pads it; "native" pads it at its own pixels, of which `size`
    were seen at once in training (`core.geometry`).
    """

    channels: int
    size: tuple[int, int]
    resize: str = "crop"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Card:
    """Task, classes, architecture, input, edits, metrics, the data set it was trained on (its name) and what it descends from
    (`core.licenses`: the chain of weights before it, oldest first).

    ids: the numbers that its data set has for the classes, in their order (COCO's may have holes), () where there are none; stuff: places
    of the classes that cannot be counted (panoptic).
    """

    task: str
    classes: tuple[str, ...]
    architecture: Mapping[str, Any]
    input: InputSpec
    edits: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    version: str = ""
    licenses: tuple[Mapping[str, str], ...] = ()
    data: str = ""
    ids: tuple[int, ...] = ()
    stuff: tuple[int, ...] = ()

    @property
    def descent(self) -> tuple[Mapping[str, str], ...]:
        """The chain with this model at its end, where it was trained here."""
        return (*self.licenses, {"weights": "this model", "data": self.data}) if self.data else self.licenses

    def with_metrics(self, metrics: Mapping[str, float | None]) -> Card:
        """A copy that carries these metrics."""
        return replace(self, metrics=dict(metrics))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain: dict[str, Any] = json.loads(self.to_json())
        return plain

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so that the same model always hashes the same."""
        plain = {name: value for name, value in asdict(self).items() if name not in LATER or value}
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)

    def to_ascii(self) -> str:
        """The same in ASCII, for formats that take valid Unicode only: the name of a class folder need not be that."""
        return json.dumps(json.loads(self.to_json()), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str, *, where: str = "") -> Card:
        """Read a card from an untrusted file; raises UserError when it is not one."""
        try:
            if len(text) > MAX_CARD_BYTES:
                raise ValueError(f"the card is {len(text)} bytes long")
            return cls._checked(json.loads(text, parse_constant=_refuse))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise UserError(f"not a saccade model card: {str(error)[:300]}", where=where) from None

    @classmethod
    def _checked(cls, raw: dict[str, Any]) -> Card:
        spec = InputSpec(**raw["input"])
        numbers: list[object] = [spec.channels, *spec.size]
        if len(numbers) != 3 or not all(type(n) is int and 0 < n <= 16384 for n in numbers):
            raise ValueError("input must have channels and a size of two positive integers")
        _check_values(spec)
        spec = replace(spec, size=(spec.size[0], spec.size[1]), mean=tuple(map(float, spec.mean)), std=tuple(map(float, spec.std)))
        _check_fields({"edits": [], "metrics": {}, "version": "", "licenses": [], "data": "", "ids": [], "stuff": []} | raw)
        raw = {
            **raw,
            "input": spec,
            "classes": tuple(raw["classes"]),
            "ids": tuple(raw.get("ids", ())),
            "stuff": tuple(raw.get("stuff", ())),
        }
        raw["edits"], raw["licenses"] = tuple(raw.get("edits", ())), tuple(raw.get("licenses", ()))
        return cls(**raw)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _check_values(spec: InputSpec) -> None:
    if not isinstance(spec.resize, str):
        raise ValueError("resize must be a name")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values) or len(values) not in (0, spec.channels):
            raise ValueError(f"{name} must be a finite number a channel")
    if not all(value > 0 for value in spec.std):
        raise ValueError("std must be positive")


def _check_fields(raw: Mapping[str, Any]) -> None:
    classes = raw["classes"]
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes) and len(set(classes)) == len(classes)):
        raise ValueError("classes must be a list of different names")
    if not isinstance(ids := raw["ids"], list) or not all(type(one) is int and abs(one) < 1 << 53 for one in ids):
        raise ValueError("ids must be a list of whole numbers")
    if ids and not len(set(ids)) == len(ids) == len(classes):
        raise ValueError("ids must be different, one for each class")
    if not isinstance(stuff := raw["stuff"], list) or not all(type(one) is int and 0 <= one < len(classes) for one in stuff):
        raise ValueError("stuff must be a list of places of classes")
    if not all(isinstance(raw[name], str) for name in ("task", "version", "data")):
        raise ValueError("task, version and data must be texts")
    if not (isinstance(raw["architecture"], dict) and isinstance(raw["metrics"], dict)):
        raise ValueError("architecture and metrics must be objects")
    if not all(value is None or type(value) in (int, float) for value in raw["metrics"].values()):
        raise ValueError("metrics must be numbers")
    if not all(isinstance(raw[name], list) and all(isinstance(row, dict) for row in raw[name]) for name in ("edits", "licenses")):
        raise ValueError("edits and licenses must be lists of objects")
    if not all(isinstance(text, str) for row in raw["licenses"] for text in row.values()):
        raise ValueError("licenses must hold texts")
