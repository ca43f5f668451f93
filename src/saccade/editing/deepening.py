"""More blocks."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.editing.feeding import Inputs, doubled, run
from saccade.editing.sources import of_block
from saccade.editing.steps import Insert, part
from saccade.editing.subject import HELD, Operation, Subject, around, stands_alone, usage
from saccade.editing.tracing import is_map
from saccade.nn.layers.exits import Exit

MOST_BLOCKS = 64
CLOSE = 1e-6


@dataclass(frozen=True)
class Deepen(Operation):
    """A stage gets blocks like its last one, whose branches end in zeros, so that they pass on what they take; another module a residual
    block behind it."""

    name = "deepen"
    usage = "deepen PATH +N, of N more blocks: deepen layer2 +1"

    path: str
    count: int

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """PATH +N."""
        if len(words) != 2 or not re.fullmatch(r"\+?\d{1,3}", words[1]) or not 1 <= int(words[1]) <= MOST_BLOCKS:
            raise usage(cls, words)
        return cls(words[0], int(words[1]))

    def plan(self, subject: Subject) -> dict[str, Any]:
        """Put the blocks in one by one."""
        inputs = doubled(subject.trace().inputs)
        for name in subject.find(self.path):
            for _ in range(self.count):
                step = _step(subject, name, inputs)
                if isinstance(step, str):
                    raise self._refused(subject, name, step, inputs)
                subject.take(step)
        return {}

    def _refused(self, subject: Subject, name: str, why: str, inputs: Inputs) -> UserError:
        """The one line that says why, and what would go."""
        others = around(subject.network, name, (one for one, _ in subject.network.named_modules()))
        near = next((one for one in others if not isinstance(_step(subject, one, inputs), str)), "")
        fix = f"{self.name} {subject.shown(near)} +{self.count} would go" if near else "no module of this network would go"
        return UserError(f"cannot deepen {subject.shown(name)}: {why}", where=self.path, fix=fix)


def _step(subject: Subject, name: str, inputs: Inputs) -> Insert | str:
    """One block more at the end of a module, or why there is none."""
    stage = part(subject.network, name)
    output = _output(subject.network, stage, inputs)
    if output is None:
        return "it gives no single tensor"
    children = list(stage.named_children()) if isinstance(stage, nn.Sequential | nn.ModuleList) else []
    for child, block in reversed(children):
        like = f"{name}.{child}"
        zero = None if isinstance(block, Exit) else _zeros(block, like, output)
        if zero is not None:
            return Insert(name, like, zero=zero)
    if output.ndim != 4 or not is_map(stage, output):
        kind = "x".join(map(str, output.shape))
        return f"it has no residual block to copy, and gives no map [B, C, H, W] but {kind}"
    if not stands_alone(subject.network, name, inputs):
        return HELD
    return Insert(name, channels=output.shape[1], zero=["bn2.weight", "bn2.bias"])


def _output(network: nn.Module, stage: nn.Module, inputs: Inputs) -> Tensor | None:
    """What a stage gives, float32; of a list of modules its last one."""
    found: list[Any] = []
    met = stage[-1] if isinstance(stage, nn.ModuleList) and len(stage) else stage
    handle = met.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        run(network, inputs)
    finally:
        handle.remove()
    alone = len(found) == 1 and isinstance(found[0], Tensor) and found[0].is_floating_point()
    return found[0] if alone else None


@torch.no_grad()
def _zeros(block: nn.Module, like: str, x: Tensor) -> list[str] | None:
    """The tensors of a block that are to be 0 so that it passes `x` on, as few as possible; None where it never does.

    All others must be alive, or nothing would reach them: so all weights are made 0, then those of one module after the other, in their
    order, come back, where the block still passes everything on.
    """
    copied = copy.deepcopy(block).eval()
    numbers = dict(copied.named_parameters())
    if not numbers or any(value is None for value in numbers.values()):
        return None
    fresh = torch.Generator().manual_seed(0)
    alive = {name: torch.randn(value.shape, generator=fresh) * 0.1 for name, value in numbers.items()}
    for name, source in of_block(copied, like, ()).items():
        if name in numbers and source.name:
            alive[name] = numbers[name].clone().where(numbers[name] != 0, 0.1)
    _fill(numbers, dict.fromkeys(numbers))
    if not _passes(copied, x):
        return None
    zero = []
    for names in _by_module(list(numbers)):
        _fill(numbers, {name: alive[name] for name in names})
        if not _passes(copied, x):
            _fill(numbers, dict.fromkeys(names))
            zero += names
    return zero


def _by_module(names: Sequence[str]) -> list[list[str]]:
    """Tensors of one module together; a block's own come last: they scale what its modules give."""
    found: dict[str, list[str]] = {}
    for name in names:
        path, _, last = name.rpartition(".")
        found.setdefault(path or f".{last}", []).append(name)
    return [found[key] for key in sorted(found, key=lambda key: key.startswith("."))]


def _fill(numbers: dict[str, nn.Parameter], values: dict[str, Any]) -> None:
    for name, value in values.items():
        numbers[name].zero_() if value is None else numbers[name].copy_(value)


def _passes(block: nn.Module, x: Tensor) -> bool:
    try:
        y = block(x)
    except Exception:  # made for another shape
        return False
    return isinstance(y, Tensor) and y.shape == x.shape and bool(torch.allclose(y, x, rtol=CLOSE, atol=CLOSE))
