"""Exits on the way through a network that classifies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.core.geometry import whole
from saccade.editing.feeding import Inputs
from saccade.editing.steps import MOST_GRID, Leave, part
from saccade.editing.subject import HELD, AtPath, Subject, around, stands_alone
from saccade.editing.tracing import is_map
from saccade.nn.features import channels_last, evaluating
from saccade.nn.layers.exits import Exit, passed_by

MOST_FEATURES = 1024  # that an exit's layer takes, where fewer parts of the map make that possible
CLOSE = 1e-5  # of the outputs of images that go on, whichever others do
Calls = Mapping[str, list[tuple[Any, Any]]]


@dataclass(frozen=True)
class EarlyExit(AtPath):
    """The last layer's answer stays what it was. Training is about all exits from then on, each with as much weight as the share of the
    computation that lies before it (Kaya et al. 2019 let their weights rise to that)."""

    name = "early-exit"
    usage = "early-exit PATH: early-exit layer2"
    keeps = False

    def plan(self, subject: Subject) -> dict[str, Any]:
        """One behind each module of the path."""
        card = subject.card
        if card.task != "classify":
            message = f"only a model that gives each image one class is left early, this one is for {card.task}"
            raise UserError(message, where=self.name, fix="prune PATH F makes it faster for all images")
        calls, inputs = subject.calls(), subject.trace().inputs
        blank = torch.zeros(1, card.input.channels, *whole(card.input.size, card.input.resize), dtype=torch.uint8)
        for name in subject.find(self.path):
            if problem := _problem(subject, name, calls, inputs):
                near = next((one for one in around(subject.network, name, calls) if not _problem(subject, one, calls, inputs)), "")
                fix = f"{self.name} {subject.shown(near)} would go" if near else "no module of this network would go"
                raise UserError(f"cannot leave behind {subject.shown(name)}: {problem}", where=self.path, fix=fix)
            module, output = part(subject.network, name), calls[name][0][1]
            mapped = output.ndim == 4 and is_map(module, output) and not channels_last(subject.network)
            channels = int(output.shape[1 if mapped else -1])
            grid = next((grid for grid in range(MOST_GRID, 1, -1) if channels * grid**2 <= MOST_FEATURES), 1) if mapped else 0
            with evaluating(subject.network), torch.no_grad():
                share = passed_by(subject.network, blank, module) / max(1, passed_by(subject.network, blank, subject.network))
            subject.take(Leave(name, channels, len(card.classes), grid, round(share, 4)))
        return {}


def _problem(subject: Subject, name: str, calls: Calls, inputs: Inputs) -> str:
    """Why no image can leave behind a module, "" where it can."""
    module, met = part(subject.network, name), calls.get(name, [])
    if isinstance(module, Exit) or (isinstance(module, nn.Sequential) and len(module) and isinstance(module[-1], Exit)):
        return "it has an exit"
    if not met:
        return "it does not run as one module"
    if len(met) > 1:
        return f"it runs {len(met)} times"
    output, last = met[0][1], calls[""][0][1]
    if not (isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1):
        return "it gives no single tensor of numbers"
    answer = last[0] if isinstance(last, tuple) else last
    if output.shape == answer.shape and torch.equal(output, answer):
        return "nothing comes behind it"
    if not stands_alone(subject.network, name, inputs):
        return HELD
    return "" if _goes_on(subject, module, inputs) else "what the network needs goes around it too"


@torch.no_grad()
def _goes_on(subject: Subject, module: nn.Module, inputs: Inputs) -> bool:
    """Whether the rest of the network answers for some of the images alone as it does for all: what is behind a module needs nothing else
    of those before it."""
    size, network = inputs[0].shape[1:], subject.network
    images = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    kept = torch.tensor([0, 2])
    with evaluating(network):
        expected = network(images)[kept]
        handle = module.register_forward_hook(lambda module, inputs, output: output[kept])
        try:
            found = network(images)
        except Exception:  # of whatever takes all images
            return False
        finally:
            handle.remove()
    return found.shape == expected.shape and bool(torch.allclose(found, expected, rtol=CLOSE, atol=CLOSE))
