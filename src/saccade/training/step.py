"""One optimizer step of a run: every phase forward, backward, averaged, clipped and applied, or not applied at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from saccade.core import keys
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.loader import Batch
from saccade.nn.layers.keyed import stand_in
from saccade.nn.layers.sync_norm import synchronise
from saccade.task import Phase
from saccade.training import optim, precision, sharding
from saccade.training.ranks import Ranks


class NotFiniteError(Exception):
    """A phase's loss or gradient is NaN or infinite. Its optimizer has not stepped, and buffers are as they were before the phase."""

    def __init__(self, phase: Phase, what: str) -> None:
        super().__init__(f"the {what} of phase {phase.name!r} is no longer a finite number")
        self.phase, self.what = phase, what


class OutOfMemoryError(Exception):
    """A phase did not fit into memory. Its optimizer has not stepped, and buffers are as they were before the phase."""

    def __init__(self, phase: Phase) -> None:
        super().__init__(phase.name)
        self.phase = phase


class Updater:
    """Applies optimizer steps to a model through its phases. Gradients are those of sums, divided by the global weight.

    What has been frozen rests with its batch statistics. The model's dropout is keyed from here on, and its batch statistics are those of
    all `ranks`. start: what the tensors that have learned before were, by name, to which `start_decay` draws them; progress: what share of
    the run lies before a step, by which layers that wait are let learn, all of them where it is None.
    """

    def __init__(
        self,
        model: nn.Module,
        phases: Sequence[Phase],
        config: TrainConfig,
        number: str,
        ranks: Ranks | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.phases, self.config = model, phases, config
        self.device, self.precision = next(model.parameters()).device, number
        self.ranks = ranks or Ranks()
        self.draws = stand_in(model, config.seed)
        if self.ranks.world > 1:
            synchronise(model)
        if self.sharded:
            sharding.shard(phases)
        named = dict(model.named_parameters())
        kept = start if start is not None and config.start_decay else {}
        self._start = {id(named[name]): value for name, value in kept.items()}
        self.optimizers = {phase.name: optim.build(phase, config, self._start) for phase in phases}
        self.progress: Callable[[int], float] | None = None
        self.scaler = precision.scaler(number)
        self._resting = [module for module in model.modules() if isinstance(module, _NormBase) and _frozen(module)]
        self._buffers = _Kept(model)

    @property
    def sharded(self) -> bool:
        """Whether the parameters are spread over the ranks: torch adds up their gradients then."""
        return self.config.shard and self.ranks.world > 1

    def due(self, step: int) -> list[Phase]:
        """The phases that take part in a step."""
        return [phase for phase in self.phases if step % phase.every == 0]

    def step(self, batches: Sequence[Batch], step: int, factor: float) -> dict[str, float]:
        """Do step number `step` at `factor` times the peak rate; returns the mean losses by name."""
        means: dict[str, float] = {}
        for phase in self.due(step):
            means |= self.phase(phase, batches, step, factor)
        self.finish(step)
        return means

    def phase(self, phase: Phase, batches: Sequence[Batch], step: int, factor: float) -> dict[str, float]:
        """The part of one phase in it. Raises NotFiniteError or OutOfMemoryError, and then has changed nothing."""
        self.model.train()
        for module in self._resting:
            module.eval()
        if phase.pace is not None and self.progress is not None:
            phase.pace(self.progress(step))
        self._buffers.keep()
        try:
            means = self._phase(phase, batches, step, factor)
        except NotFiniteError:
            self._buffers.restore()
            raise
        except Exception as error:
            if not is_memory(error):
                raise
            self._buffers.restore()
            self.optimizers[phase.name].zero_grad(set_to_none=True)
            raise OutOfMemoryError(phase) from error
        if phase.after_step is not None:
            phase.after_step(step)
        return means

    def finish(self, step: int) -> None:
        """After the last phase of a step."""
        if self.scaler.is_enabled() and self.due(step):
            self.scaler.update()

    def _phase(self, phase: Phase, batches: Sequence[Batch], step: int, factor: float) -> dict[str, float]:
        optimizer = self.optimizers[phase.name]
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        weight = 0.0
        with self._only(phase, step):
            for number, batch in enumerate(batches, 1):
                sharding.synchronise(phase, last=number == len(batches))
                torch.manual_seed(keys.derive(self.config.seed, f"forward {phase.name}", int(batch.positions[0])))
                self.draws.begin(phase.name, batch.positions)
                with precision.autocast(self.precision, self.device):
                    losses = phase.loss(batch, step)
                self.scaler.scale(losses.total).backward()
                weight += losses.weight
                for name, part in {"loss": losses.total, **losses.parts}.items():
                    sums[name] = sums.get(name, 0.0) + float(part.detach())
        weight, sums = self._over_ranks(phase, weight, sums)
        means = {name: value / max(weight, 1e-12) for name, value in sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise NotFiniteError(phase, "loss")
        self._apply(phase, weight, factor)
        prefix = f"{phase.name}/" if len(self.phases) > 1 else ""
        return {prefix + name: value for name, value in means.items()}

    def _over_ranks(self, phase: Phase, weight: float, sums: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Weight and losses of all processes together; a parameter that any of them has a gradient for gets one on each."""
        if self.ranks.world == 1:
            return weight, dict(sums)
        parameters = optim.trained(phase)
        told = self.ranks.summed([weight, *sums.values(), *(float(p.grad is not None) for p in parameters)])
        for parameter, given in zip(parameters, told[1 + len(sums) :], strict=True):
            if given and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return told[0], dict(zip(sums, told[1:], strict=False))

    def _apply(self, phase: Phase, weight: float, factor: float) -> None:
        optimizer = self.optimizers[phase.name]
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not self.sharded:
            self.ranks.add_up([p.grad for p in parameters])
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
        torch._foreach_div_([p.grad for p in parameters], max(weight, 1e-12))
        norm = sharding.gathered(self._clipped(parameters))
        # An infinite gradient under fp16 is the scaler's business: it leaves the step out and scales less.
        if not self.scaler.is_enabled() and not math.isfinite(float(norm)):
            raise NotFiniteError(phase, "gradient")
        for group in optimizer.param_groups:
            group["lr"] = self.config.lr * factor * group["scale"]
        if self._start and math.isfinite(float(norm)):
            self._draw_to_start(optimizer)
        self.scaler.step(optimizer)

    def _waiting(self, phase: Phase, step: int) -> list[nn.Parameter]:
        """Those of layers whose turn has not come: the last layer learns at once, the first from a share of `unfreeze` of all steps on."""
        done = 1.0 if self.progress is None or not self.config.unfreeze else self.progress(step)
        groups = self.optimizers[phase.name].param_groups
        return [parameter for group in groups if done < self.config.unfreeze * (1 - group["depth"]) for parameter in group["params"]]

    @torch.no_grad()
    def _draw_to_start(self, optimizer: torch.optim.Optimizer) -> None:
        """L2-SP (Li et al. 2018, section 3.2): the gradient of half `start_decay` times the squared distance to the start; apart from the
        moments but under SGD, as the weight decay is (Loshchilov & Hutter 2019)."""
        for group in optimizer.param_groups:
            pulled = [p for p in group["params"] if p.grad is not None and id(p) in self._start]
            if not pulled:
                continue
            starts = [self._start[id(p)] for p in pulled]
            if self.config.optimizer != "sgd":
                torch._foreach_lerp_(pulled, starts, min(1.0, group["lr"] * self.config.start_decay))
            else:
                away = torch._foreach_sub(pulled, starts)
                torch._foreach_add_([p.grad for p in pulled], away, alpha=self.config.start_decay)

    def _clipped(self, parameters: list[nn.Parameter]) -> Tensor:
        """The norm of all gradients together, before they are clipped to the configuration's."""
        if self.config.clip:
            return nn.utils.clip_grad_norm_(parameters, self.config.clip)
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    @contextmanager
    def _only(self, phase: Phase, step: int) -> Iterator[None]:
        """Freeze what the phase does not train, or not yet, so that no gradient is made for it."""
        mine = {id(p) for p in optim.trained(phase)}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in mine] + self._waiting(phase, step)
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)


def _frozen(module: nn.Module) -> bool:
    """Whether it has parameters, and none of them learns."""
    own = list(module.parameters())
    return bool(own) and not any(parameter.requires_grad for parameter in own)


class _Kept:
    """A copy of a model's buffers (running statistics), which a forward pass that comes to nothing has changed already."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies: Mapping[str, Tensor] = {}

    @torch.no_grad()
    def keep(self) -> None:
        now = dict(self._model.named_buffers())
        if self._copies.keys() != now.keys():
            self._copies = {name: value.clone() for name, value in now.items()}
        elif now:
            torch._foreach_copy_(list(self._copies.values()), list(now.values()))

    @torch.no_grad()
    def restore(self) -> None:
        for name, value in self._model.named_buffers():
            value.copy_(self._copies[name])


def is_memory(error: Exception) -> bool:
    """Whether an error says that memory does not suffice; on a processor torch says so by the text of a RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))


def refusal(error: NotFiniteError, step: int, found: str, rate: float) -> UserError:
    """The one line that ends a run whose numbers are no longer finite. rate: its highest, of which a part is advised."""
    fix = f"lower the rate, e.g. --set lr={rate / 4:g}, set clip=1, or use --on-nan skip or back"
    return UserError(f"{error} at step {step}{found}; the weights are as they were before that step", fix=fix)
