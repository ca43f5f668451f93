"""Other classes, other channels of the image."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from saccade.core.bands import MOST
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError, unknown
from saccade.editing.blocks import Adapted, Factored, Followed
from saccade.editing.edit import Promise, unedited
from saccade.editing.feeding import makes
from saccade.editing.groups import Channels, TiedError
from saccade.editing.pieces import FRESH, pieces
from saccade.editing.steps import Input, Mix, Resize, first_step, part
from saccade.editing.subject import Operation, Subject, usage
from saccade.editing.tracing import Codes
from saccade.nn import fitting, weights
from saccade.nn.layers import exits


@dataclass(frozen=True)
class SetClasses(Operation):
    """Kept classes keep their rows, bit by bit, and their order, or that of a whole list; new ones come last, with weights of 0 and the
    mean of the biases. What is told of those kept stays the same, but of networks that compare classes inside ("softmax" in the card)."""

    name = "set-classes"
    usage = "set-classes +NEW -GONE OLD=NAME ..., or =NAME ... for all of them in their order; quoted where a name has spaces"
    keeps = False

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[str, ...]
    whole: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """+new -gone old=name, or =name alone."""
        if words and all(word[0] == "=" and word[1:] for word in words):
            return cls((), (), (), tuple(word[1:] for word in words))
        added = tuple(word[1:] for word in words if word[0] == "+")
        removed = tuple(word[1:] for word in words if word[0] == "-")
        renamed = tuple(word for word in words if word[0] not in "+-")
        if not words or not all((*added, *removed)) or not all("=" in word.strip("=") for word in renamed):
            raise usage(cls, words)
        return cls(added, removed, renamed)

    def promised(self, card: Card) -> Promise:
        """As the class says."""
        others = self.added or self.removed or self.whole
        return "changes the function" if card.architecture.get("softmax") and others else "exact"

    def _origins(self, card: Card) -> list[tuple[str, int]]:
        """The new classes, each with the place it had, or FRESH; raises UserError."""
        names: dict[int, str] = dict(enumerate(card.classes))
        places = {name: place for place, name in names.items()}
        if self.whole:
            return _once([(name, places.get(name, FRESH)) for name in self.whole])
        for word in self.renamed:
            cuts = [(word[:at], word[at + 1 :]) for at, c in enumerate(word) if c == "="]
            old, new = next(((old, new) for old, new in cuts if old in places and new), cuts[0])
            if old not in places:
                raise unknown("class", old, card.classes, where=self.name)
            names[places[old]] = new
        for name in self.removed:
            if name not in places or names.pop(places[name], None) is None:
                raise unknown("class", name, card.classes, where=self.name)
        found = [(name, place) for place, name in names.items()] + [(name, FRESH) for name in self.added]
        if not found:
            fix = f"leave out -{self.removed[-1]}" if self.removed else "name one"
            raise UserError("no class would be left", where=self.name, fix=fix)
        return _once(found)

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Resize the last layers by their rows of classes."""
        card = subject.card
        origins = [place for _, place in self._origins(card)]
        for name, layer in self._layers(subject).items():
            value = part(subject.network, name).weight
            first = layer.first
            rows = list(range(first))
            for place in origins:
                start = first + place * layer.each
                rows += range(start, start + layer.each) if place >= 0 else [FRESH] * layer.each
            rows += range(len(value) - layer.last, len(value))
            bias = part(subject.network, name).bias
            mean = 0.0 if bias is None else float(bias.detach().double()[first:].mean())
            if pieces(rows) != [(0, len(value))]:
                subject.take(Resize(name, outputs=pieces(rows), bias=mean))
        before = {"classes": card.classes, "ids": card.ids, "stuff": card.stuff}
        return {name: list(value) for name, value in before.items() if value}

    def _layers(self, subject: Subject) -> Mapping[str, weights.Rows]:
        """The layers whose outputs are classes: those that a network for one class more has larger."""
        card = unedited(subject.card)
        arguments = dict(card.architecture.get("arguments", {}))
        key = next((key for key in ("num_classes", "classes") if key in arguments), None)
        if not card.classes or key is None or makes(subject.network):
            message = "this model has no classes that could be others"
            raise UserError(message, where=self.name, fix="train one on images with these classes")
        kept = arguments[key]
        with torch.random.fork_rng():
            names = tuple(f"{number}" for number in range(kept + 1))
            first = subject.build(_of_classes(card, key, names[:-1]), None)
            found = weights.rows_of_classes(first, subject.build(_of_classes(card, key, names), None), kept)
        named = {name.removesuffix(".weight"): rows for name, rows in found.items() if name.endswith(".weight")}
        layers = {last: rows for name, rows in named.items() for last in _last(subject.network, name)}
        mixed = any((rows.each, rows.blocks) != (1, 1) for rows in found.values()) and card.architecture.get("source") != "saccade"
        if mixed or not layers:
            raise UserError("the classes of this network stand among its anchors", where=self.name, fix="train a model for the new classes")
        leave = [last for name in exits.names(subject.network) for last in _last(subject.network, f"{name}.linear")]
        return layers | dict.fromkeys(leave, weights.Rows(0, 1))

    def card(self, card: Card) -> Card:
        """With the new classes; their numbers, where the others have some, are the next ones, and they can be counted."""
        origins = self._origins(card)
        free = itertools.count(max(card.ids, default=0) + 1)
        ids = tuple(card.ids[place] if place >= 0 else next(free) for _, place in origins) if card.ids else ()
        stuff = tuple(new for new, (_, old) in enumerate(origins) if old in card.stuff)
        return replace(card, classes=tuple(name for name, _ in origins), ids=ids, stuff=stuff)

    def kept(self, card: Card) -> Sequence[tuple[int, int]]:
        """Those that are neither new nor gone."""
        return [(old, new) for new, (_, old) in enumerate(self._origins(card)) if old >= 0]


def _once(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    names: set[str] = set()
    for name, _ in found:
        if name in names:
            raise UserError(f"class {name!r} would stand twice", where=SetClasses.name, fix="name it once, or call the new one otherwise")
        names.add(name)
    return found


def _last(network: nn.Module, name: str) -> list[str]:
    """The layers that give what a module gives, which other edits may have put into its place."""
    module = part(network, name)
    if isinstance(module, Adapted):
        return [f"{name}.base", f"{name}.up"]
    if isinstance(module, Factored):
        return [f"{name}.1"]
    return _last(network, f"{name}.0") if isinstance(module, Followed) else [name]


def _of_classes(card: Card, key: str, names: tuple[str, ...]) -> Card:
    arguments = {**card.architecture["arguments"], key: len(names)}
    return replace(card, classes=names, ids=(), architecture={**card.architecture, "arguments": arguments})


@dataclass(frozen=True)
class SetInputChannels(Operation):
    """1 grey, 3 RGB, 4 RGB and alpha, any other number: bands. More channels take the weights of the first ones in turn, each divided by
    how often it is taken, so that from 1 to 3 a grey picture is told as before; alpha has weights of 0. Fewer share out the weights of
    those that go, which tells a grey picture as before only where all were normalised alike."""

    name = "set-input-channels"
    usage = f"set-input-channels N, of 1 (grey), 3 (RGB), 4 (with alpha), or another number of bands up to {MOST}"
    keeps = False

    count: int

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """N."""
        if len(words) != 1 or not re.fullmatch(r"[1-9]\d{0,3}", words[0]) or int(words[0]) > MOST:
            raise usage(cls, words)
        return cls(int(words[0]))

    def promised(self, card: Card) -> Promise:
        """Exact for images that both forms show alike: grey ones, from 3 to 4 opaque ones, else those whose bands come again in turn."""
        spec = card.input
        alike = self.count == 1 and spec.channels != fitting.ALPHA and len({*zip(spec.mean, spec.std, strict=True)}) == 1
        more = self.count > spec.channels and spec.channels != fitting.ALPHA  # what alpha adds has no weights beyond
        return "exact" if more or alike else "changes the function"

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Another normalisation, and other weights in the layers that take the image."""
        spec = subject.card.input
        if spec.channels == self.count:
            fix = " or ".join(f"{self.name} {count}" for count in (1, 3, fitting.ALPHA) if count != self.count) + " would go"
            raise UserError(f"the model takes {self.count} channels already", where=self.name, fix=fix)
        name, channels = first_step(subject.network), Channels(subject.trace())
        try:
            group = channels.group(name)
            if len(group.layers) != 1:
                raise TiedError(f"the image is added to the channels of {group.layers[1]}")
            after = channels.trace.marks(group.layers, self.count)
            mixed = [self._mix(reader, codes, after.codes[reader], spec) for reader, codes in group.readers.items()]
        except TiedError as error:
            why = " ".join(subject.shown(word) for word in error.message.split())
            fix = f"train from its weights: --weights FILE --set channels={self.count}"
            raise UserError(f"cannot set the channels of the image: {why}", where=self.name, fix=fix) from None
        subject.take(self._input(spec))
        for step in mixed:
            subject.take(step)
        return {"channels": spec.channels, "mean": list(spec.mean), "std": list(spec.std)}

    def _input(self, spec: InputSpec) -> Input:
        """Means and deviations: grey has the averages, alpha 0.5."""
        found = []
        for values in (spec.mean, spec.std):
            colours = values[: fitting.colours(spec.channels)]
            count = fitting.colours(self.count)
            mean = [sum(colours) / len(colours)] * count
            turns = [colours[place % len(colours)] for place in range(count)]
            found.append([*(mean if count < len(colours) else turns), *[0.5] * (self.count - count)])
        mean, std = found
        return Input(self.count, mean, std)

    def _mix(self, reader: str, before: Codes, after: Codes, spec: InputSpec) -> Mix:
        """Each new input as the sum of old ones; each channel must come as often as before, in the same places."""
        old, new = _places(before, spec.channels), _places(after, self.count)
        if len({len(places) for places in (*old, *new)}) != 1:
            raise TiedError(f"{reader} takes the channels of the image in another way")
        terms = [
            (place, source, factor)
            for to, places in enumerate(new)
            for at, factor in self._shares(to, spec)
            for place, source in zip(places, old[at], strict=True)
        ]
        return Mix(reader, len(after), terms)

    def _shares(self, to: int, spec: InputSpec) -> list[tuple[int, float]]:
        """Of which old channels a new one is made, and by which factors."""
        before, count = fitting.colours(spec.channels), fitting.colours(self.count)
        if to == count:  # alpha
            return []
        if count >= before:
            return [(to % before, 1 / len(range(to % before, count, before)))]
        std = self._input(spec).std[to]
        return [(to, std / spec.std[to]), *((at, std / spec.std[at] / count) for at in range(count, before))]

    def card(self, card: Card) -> Card:
        """With the new channels."""
        given = self._input(card.input)
        return replace(card, input=replace(card.input, channels=given.channels, mean=tuple(given.mean), std=tuple(given.std)))


def _places(codes: Codes, channels: int) -> list[list[int]]:
    return [[place for place, code in enumerate(codes.tolist()) if code == channel] for channel in range(channels)]
