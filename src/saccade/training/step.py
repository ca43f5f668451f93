"""One optimizer step of a run: every phase forward, backward, averaged, clipped and applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from saccade.core import keys
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.loader import Batch
from saccade.task import Phase
from saccade.training import optim, precision


class Updater:
    """Applies optimizer steps to a model through its phases. Gradients are those of sums, divided by the global weight."""

    def __init__(self, model: nn.Module, phases: Sequence[Phase], config: TrainConfig, device: torch.device, number: str) -> None:
        self.model, self.phases, self.config = model, phases, config
        self.device, self.precision = device, number
        self.optimizers = {phase.name: optim.build(phase, config) for phase in phases}
        self.scaler = precision.scaler(number)

    def step(self, batches: Sequence[Batch], step: int, factor: float) -> dict[str, float]:
        """Do step number `step` at `factor` times the peak rate; returns the mean losses by name."""
        self.model.train()
        means: dict[str, float] = {}
        due = [phase for phase in self.phases if step % phase.every == 0]
        for phase in due:
            means |= self._phase(phase, batches, step, factor)
            if phase.after_step is not None:
                phase.after_step(step)
        if due and self.scaler.is_enabled():
            self.scaler.update()
        return means

    def _phase(self, phase: Phase, batches: Sequence[Batch], step: int, factor: float) -> dict[str, float]:
        optimizer = self.optimizers[phase.name]
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        weight = 0.0
        with self._only(phase):
            for batch in batches:
                torch.manual_seed(keys.derive(self.config.seed, f"forward {phase.name}", int(batch.positions[0])))
                with precision.autocast(self.precision, self.device):
                    losses = phase.loss(batch, step)
                self.scaler.scale(losses.total).backward()
                weight += losses.weight
                for name, part in {"loss": losses.total, **losses.parts}.items():
                    sums[name] = sums.get(name, 0.0) + float(part.detach())
        means = {name: value / max(weight, 1e-12) for name, value in sums.items()}
        if not all(map(_finite, means.values())):
            raise UserError(
                f"the loss of phase {phase.name!r} is no longer a finite number at step {step}; its weights are as they were before",
                fix=f"lower the rate, e.g. --set lr={self.config.lr / 4:g}, or set clip=1",
            )
        self._apply(optimizer, weight, factor)
        prefix = f"{phase.name}/" if len(self.phases) > 1 else ""
        return {prefix + name: value for name, value in means.items()}

    def _apply(self, optimizer: torch.optim.Optimizer, weight: float, factor: float) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.scaler.unscale_(optimizer) if self.scaler.is_enabled() else None
        torch._foreach_div_([p.grad for p in parameters], max(weight, 1e-12))
        if self.config.clip:
            nn.utils.clip_grad_norm_(parameters, self.config.clip)
        for group in optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        self.scaler.step(optimizer)

    @contextmanager
    def _only(self, phase: Phase) -> Iterator[None]:
        """Freeze what the phase does not train, so that no gradient is made for it."""
        mine = {id(p) for p in optim.trained(phase)}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in mine]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)


def _finite(value: float) -> bool:
    return value - value == 0
