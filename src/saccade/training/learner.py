"""A network with all that learns it, and how another is made of it when the network, or how it is trained, is changed on the way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from saccade.core import config as configs
from saccade.core.card import Card
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.nn import weights
from saccade.nn.compiling import compiled
from saccade.nn.layers.keyed import stand_in
from saccade.task import Task
from saccade.training import optim, sharding
from saccade.training.ema import Average
from saccade.training.ranks import Ranks
from saccade.training.step import Updater

MOST_GROWTH = 256  # times as many numbers as at the beginning, that a run's record may lead to
Moved = Callable[[optim.Moments], optim.Moments]


class Editing(Protocol):
    """What api hands in of `editing`."""

    def plan(self, text: str, network: nn.Module, card: Card) -> tuple[dict[str, Any], dict[str, Any]]:
        """An edit as a card has it, and what it would change; raises UserError."""
        ...

    def check(
        self, edits: Sequence[Mapping[str, Any]], network: nn.Module, tensors: Mapping[str, tuple[int, ...]] | None, most: int
    ) -> None:
        """Raise UserError for edits from a file that cannot be made, do not end in these tensors, or ask for more than `most` numbers."""
        ...

    def card(self, card: Card, edit: Mapping[str, Any]) -> Card:
        """The card with one edit more."""
        ...

    def apply(self, network: nn.Module, edit: Mapping[str, Any]) -> Moved:
        """Change `network` where it stands; gives what becomes of moments, and, under the name "start", of where tensors are drawn to."""
        ...

    def take_back(self, before: nn.Module, state: Mapping[str, Tensor], card: Card) -> Moved:
        """Give the network as it was before the card's last edit what `state` has learned since."""
        ...

    def effect(self, before: tuple[nn.Module, Card], after: tuple[nn.Module, Card]) -> dict[str, Any]:
        """What differs between two networks, as `plan` tells it."""
        ...

    def copied(self, network: nn.Module) -> nn.Module:
        """A copy to plan on."""
        ...


@dataclass(frozen=True)
class Kind:
    """What all learners of a run have in common. precision: of the computation; steps: that the run was planned to have; progress: the
    share of it before a step; start: what the tensors that had learned before were, by name, in the network that the run began with."""

    precision: str
    steps: int
    ranks: Ranks
    progress: Callable[[int], float]
    start: Mapping[str, Tensor]


@dataclass(frozen=True)
class Held:
    """What another learner is made of, whole on each process. moments: by phase, what its optimizer remembers."""

    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    moments: Mapping[str, optim.Moments]


class Learner:
    """model, the average of its weights, and what steps them. card, config: as they are now; start: that of the kind, of this network."""

    def __init__(self, task: Task, model: nn.Module, card: Card, config: TrainConfig, kind: Kind, average: Average | None = None) -> None:
        self.model, self.card, self.config = model, card, config
        self.average, self.start = average, kind.start
        if config.ema and average is None:
            self.average = Average(model, config.ema * kind.steps)
        plain = copy.deepcopy(model) if config.shard and not config.ema else model
        self.updater = Updater(model, task.phases(model, config), config, kind.precision, kind.ranks, kind.start)
        self.updater.progress = kind.progress
        self._plain = plain if self.updater.sharded else model
        if config.compile:
            compiled(model)
        if self.average is not None:
            self.average.spread(model)

    def shipped(self) -> nn.Module:
        """The model that is kept, whole: the averaged one where there is one. All ranks must ask for it."""
        if self.average is not None:
            return self.average.settle()
        if self.updater.sharded:
            self._plain.load_state_dict(sharding.whole(self.model.state_dict()))
        return self._plain

    def whole(self) -> dict[str, Tensor] | None:
        """The weights, where they are spread over the ranks, put together; all of them must ask for it."""
        return sharding.whole(self.model.state_dict()) if self.updater.sharded else None

    def groups(self) -> list[str]:
        """The names of what a checkpoint holds of it."""
        return ["model", *(["average"] if self.average else []), *(f"optimizer-{name}" for name in self.updater.optimizers)]

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """What a checkpoint holds of it, whole. All ranks must ask for it."""
        found: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict()}
        if self.average is not None:
            found["average"] = self.average.state()
        for name, optimizer in self.updater.optimizers.items():
            found[f"optimizer-{name}"] = optim.state(optimizer)
        return {name: sharding.whole(group) for name, group in found.items()}

    def held(self) -> Held:
        """What another learner is made of. All ranks must ask for it, and for nothing else while a change is made: so one that fails at the
        rest keeps none of them waiting. Raises UserError on all of them where one has not the memory."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        moments = {phase: optim.moments(optimizer, names) for phase, optimizer in self.updater.optimizers.items()}
        parts = {(phase, name, part): value for phase, one in moments.items() for name, kept in one.items() for part, value in kept.items()}
        found = dict[str, dict[str, dict[str, Tensor]]]({phase: {} for phase in moments})
        for (phase, name, part), value in sharding.whole(parts).items():
            found[phase].setdefault(name, {})[part] = value
        average = {} if self.average is None else self.average.state()
        return Held(sharding.whole(self.model.state_dict()), sharding.whole(average), found)

    def load(self, groups: Mapping[str, Mapping[str, Buffer]], scaler: Mapping[str, float | int], where: str) -> None:
        """Take up what `tensors` gave; raises UserError for what does not fit."""
        weights.load_into(self.model, groups["model"], where=where)
        if self.average is not None:
            self.average.load(groups["average"], where)
        for name, optimizer in self.updater.optimizers.items():
            optim.restore(optimizer, groups[f"optimizer-{name}"], where=f"{where}/optimizer-{name}")
        if self.updater.scaler.is_enabled():
            self.updater.scaler.load_state_dict(dict(scaler))

    def follow(self, other: Learner, held: Held, moved: Moved | None) -> None:
        """Take up the optimizers' state of the learner that this one was made of."""
        mine = dict(self.model.named_parameters())
        for phase, optimizer in self.updater.optimizers.items():
            if phase in held.moments:
                before = held.moments[phase]
                optim.take(optimizer, moved(before) if moved else before, mine)
        self.updater.scaler.load_state_dict(other.updater.scaler.state_dict())


class Workshop:
    """Makes learners of a run: the first, the same again for a checkpoint, and changed ones, while the one in use stays as it is."""

    def __init__(self, task: Task, first: Learner, blank: nn.Module | None, kind: Kind, editor: Editing | None) -> None:
        self._task, self._blank, self._kind, self.editor = task, blank, kind, editor
        self._device = next(first.model.parameters()).device
        self._config, self._card = first.config, first.card
        self.base = len(first.card.edits)  # edits that the network came with

    def again(self, edits: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], tensors: Mapping[str, Buffer]) -> Learner:
        """The learner that a checkpoint was written of, whose weights are still to come; raises UserError for edits that do not fit."""
        if list(edits[: self.base]) != list(self._card.edits):
            raise UserError(
                "the run did not start from this network", where="checkpoint", fix="bring back the weights that it started from"
            )
        if edits[self.base :]:
            shapes = {name: tuple(buffer.shape) for name, buffer in tensors.items()}
            most = sum(map(math.prod, shapes.values())) * MOST_GROWTH
            self._known().check(edits[self.base :], self._network(self._card.edits)[0], shapes, most)
        config = configs.override(self._config, settings)
        network, start = self._network(edits)
        return self._made(network, replace(self._card, edits=tuple(edits)), config, start)

    def copied(self, learner: Learner, whole: Mapping[str, Tensor] | None) -> nn.Module:
        """The network of a learner on the processor, to plan on; whole: what `Learner.whole` gave."""
        network = learner.model if whole is None else self._network(learner.card.edits, whole)[0]
        return self._known().copied(network)

    def edited(self, old: Learner, edit: Mapping[str, Any]) -> Learner:
        """With one edit more."""
        editor, edits, held = self._known(), old.card.edits, old.held()
        model, _ = self._network(edits, held.model)
        moved = editor.apply(model, edit)
        new = self._made(self._laid_out(model), replace(old.card, edits=(*edits, edit)), old.config, _through(moved, old.start))
        if old.average is not None and new.average is not None:
            average, _ = self._network(edits, held.average)
            editor.apply(average, edit)
            new.average.take(average, new.model)
        new.follow(old, held, moved)
        return new

    def taken_back(self, old: Learner) -> Learner:
        """Without the last edit. Raises UserError where that cannot be."""
        editor, edits, held = self._known(), old.card.edits[:-1], old.held()
        model, start = self._network(edits)
        moved = editor.take_back(model, held.model, old.card)
        new = self._made(self._laid_out(model), replace(old.card, edits=edits), old.config, start)
        if old.average is not None and new.average is not None:
            average, _ = self._network(edits)
            editor.take_back(average, held.average, old.card)
            new.average.take(average, new.model)
        new.follow(old, held, moved)
        return new

    def set(self, old: Learner, config: TrainConfig) -> Learner:
        """The same network, trained in another way. Where the new learner is not taken, the old one must be kept (`keep`)."""
        model, held = old.model, old.held()
        if old.updater.sharded:  # what is spread cannot be spread again
            model, _ = self._network(old.card.edits, held.model)
            if old.average is not None:
                old.average.module.load_state_dict(held.average)
        new = Learner(self._task, model, old.card, config, replace(self._kind, start=old.start), old.average)
        new.follow(old, held, None)
        return new

    def keep(self, old: Learner) -> None:
        """Go on with a learner whose network another one has been made ready for."""
        old.updater.draws = stand_in(old.model, old.config.seed)

    def check(self, old: Learner, edit: Mapping[str, Any]) -> None:
        """Raise UserError for an edit, which may come from a file, that cannot be made on a learner's network, or asks for far more memory
        than the network that the run began with."""
        if self._blank is None:
            raise UserError("this run cannot be edited", where="edit")
        most = sum(value.numel() for value in self._blank.state_dict().values()) * MOST_GROWTH
        network = self._network(old.card.edits)[0] if old.updater.sharded else old.model
        self._known().check([edit], network, None, most)

    def _made(self, model: nn.Module, card: Card, config: TrainConfig, start: Mapping[str, Tensor]) -> Learner:
        return Learner(self._task, model, card, config, replace(self._kind, start=start))

    def _network(
        self, edits: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor] | None = None
    ) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """The network with these edits, whose numbers are those of `state`, or any; and where it is drawn to."""
        if self._blank is None:
            raise TypeError("a run without an editor has no edits")
        network, start = filled(self._blank, self._device), self._kind.start
        for edit in edits[self.base :]:
            start = _through(self._known().apply(network, edit), start)
        if state is not None:
            network.load_state_dict(state)
        return self._laid_out(network), start

    def _laid_out(self, network: nn.Module) -> nn.Module:
        """All tensors in the layout that they have after a resume too: the order of sums depends on it."""
        for parameter in network.parameters():
            images = parameter.ndim == 4 and self._config.channels_last
            layout = torch.channels_last if images else torch.contiguous_format
            parameter.data = torch.empty_like(parameter, memory_format=layout).copy_(parameter.detach())
        return network.train()

    def _known(self) -> Editing:
        if self.editor is None:
            raise TypeError("a run without an editor has no edits")
        return self.editor


def _through(moved: Moved, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where a changed network is drawn to: what has learned before moves as its weights do, fresh channels of it are drawn to what they are
    drawn about (0, or 1 of a normalisation; Li et al. 2018, section 3.2, draws what is new to 0), and new tensors to nothing."""
    return {name: parts["start"] for name, parts in moved({name: {"start": value} for name, value in start.items()}).items()}


def started(network: nn.Module, learned: Collection[str], config: TrainConfig) -> dict[str, Tensor]:
    """Copies of the parameters of these names, where the run is to be drawn to them."""
    held = learned if config.start_decay else ()
    return {name: value.detach().clone() for name, value in network.named_parameters() if name in held}


def blank(network: nn.Module) -> nn.Module:
    """A copy whose parameters are shapes alone."""
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in network.parameters()}
    return copy.deepcopy(network, dict(empty))


def filled(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a blank network whose parameters are any numbers, on `device`; what was tied stays so."""
    made = copy.deepcopy(network)
    full = {id(p): nn.Parameter(torch.empty_like(p, device=device), p.requires_grad) for p in made.parameters()}
    for module in made.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = full[id(parameter)]
    return made
