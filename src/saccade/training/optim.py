"""Optimizers by name, with weight decay on matrices only, and their state as plain tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.modelfile import Buffer
from saccade.nn import layering, weights
from saccade.nn.weights import is_sharded, like
from saccade.task import Phase
from saccade.training.muon import Muon

Moments = Mapping[str, Mapping[str, Tensor]]  # by parameter, then by part: exp_avg, exp_avg_sq, step; momentum_buffer
MATRIX = (
    16  # inputs and outputs of a layer from which on its weight is a matrix to Muon: not the first layer's, nor a head's of few classes
)


def build(phase: Phase, config: TrainConfig, learned: Collection[int] = ()) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), SGD with Nesterov momentum, or Muon with AdamW for what is no matrix, over the phase's parameters.

    Biases and norms (parameters of fewer than two axes) take no weight decay, nor do those in `learned` (their ids), which are drawn to
    where they started instead. Groups say in "scale" what the rate is multiplied by, and in "depth" where their layer stands between the
    network's first (0) and its last (1): all is 1 where layers learn alike.
    """
    parameters = trained(phase)
    placed = _depths(phase) if config.layer_decay < 1 or config.unfreeze else {}
    matrices = _matrices(phase) if config.optimizer == "muon" else set()
    found: dict[tuple[int, int, bool, bool, bool], dict[str, Any]] = {}
    for parameter in parameters:
        depth, last = placed.get(id(parameter), (0, 0))
        vector, pulled, matrix = parameter.ndim < 2, id(parameter) in learned, id(parameter) in matrices
        facts = {"scale": config.layer_decay ** (last - depth), "depth": depth / last if last else 1.0, "matrix": matrix}
        facts["weight_decay"] = 0.0 if vector or pulled else config.weight_decay
        found.setdefault((depth, last, vector, pulled, matrix), {"params": [], **facts})["params"].append(parameter)
    groups = [found[key] for key in sorted(found)]
    if not groups:
        raise UserError(f"phase {phase.name!r} has nothing to train", fix="unfreeze a part of the model")
    fused = all(p.device.type in ("cpu", "cuda") and not is_sharded(p) for p in parameters)  # torch has no fused SGD for what is sharded
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
    if config.optimizer == "muon":
        return Muon(groups, config.lr, config.betas, fused)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


def _matrices(phase: Phase) -> set[int]:
    """The weights of dense and convolutional layers of all channels, by their ids."""
    layers = [one for module in phase.modules for one in module.modules() if isinstance(one, nn.Linear | _ConvNd)]
    return {id(one.weight) for one in layers if min(one.weight.shape[:2]) >= MATRIX}


def _depths(phase: Phase) -> dict[int, tuple[int, int]]:
    """The layer of each parameter, by its id, and the last layer of its module."""
    found = dict[int, tuple[int, int]]()
    for module in phase.modules:
        depths = layering.depths(module)
        last = max(depths.values(), default=0)
        found |= {id(value): (depths[name], last) for name, value in module.named_parameters()}
    return found


def trained(phase: Phase) -> list[nn.Parameter]:
    """The parameters that a phase updates, each once."""
    found = {id(p): p for module in phase.modules for p in module.parameters() if p.requires_grad}
    return list(found.values())


def state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and counters as `index.name` -> tensor; the index counts parameters over the groups."""
    found = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            found[f"{index}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return found


def restore(optimizer: torch.optim.Optimizer, buffers: Mapping[str, Buffer], *, where: str) -> None:
    """Take up what `state` gave; raises DamagedError for what this optimizer cannot have left.

    Moments get the strides of their parameter: fused kernels walk both in the order of memory. Counters stay on the CPU but
    where a fused kernel wants them beside the parameter, as in torch's own `load_state_dict`.
    """
    places = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.state.clear()
    for key, value in weights.from_buffers(buffers).items():
        parameter, fused, name = _place(optimizer, places, key, where)
        shape = torch.Size() if name == "step" else parameter.shape
        if value.shape != shape or not value.is_floating_point():
            raise DamagedError(f"{key} must be {list(shape)} of a float, got {list(value.shape)} of {value.dtype}", where=where)
        if name == "step":
            kept = value.to(parameter.device if fused else "cpu", copy=True)
        else:
            kept = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(like(value, parameter))
        optimizer.state[parameter][name] = kept
    if any(one in optimizer.state and optimizer.state[one].keys() != _names(optimizer, group) for one, group in places):
        raise DamagedError("a parameter lacks a part of its state", where=where)


def moments(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Moments:
    """What is remembered of each parameter, by its name; names: by the identity of the parameter."""
    held = ((names.get(id(parameter)), optimizer.state.get(parameter)) for parameter in _parameters(optimizer))
    return {name: dict(state) for name, state in held if name is not None and state}


def take(optimizer: torch.optim.Optimizer, held: Moments, parameters: Mapping[str, nn.Parameter]) -> None:
    """Take up copies of what another optimizer of the same kind has left, for those parameters that this one trains.

    A weight that is a matrix to Muon now, and was none before, starts afresh, as does one that no longer is."""
    mine = {id(parameter): _names(optimizer, group) for group in optimizer.param_groups for parameter in group["params"]}
    for name, state in sorted(held.items()):  # what is spread is so by all processes, one tensor after the other
        parameter = parameters.get(name)
        if parameter is None or state.keys() != mine.get(id(parameter), set()):
            continue
        for part, value in state.items():
            if value.ndim or part != "step":
                kept = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(like(value, parameter))
            else:
                kept = value.clone()
            optimizer.state[parameter][part] = kept
    if held and isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"]:
        for parameter in _parameters(optimizer):  # a fused kernel takes all buffers or none; 0 is what none means
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter, requires_grad=False))


def _place(optimizer: torch.optim.Optimizer, places: list[Any], key: str, where: str) -> tuple[nn.Parameter, bool, str]:
    """Which parameter and which part of its state a key means."""
    index, _, name = key.partition(".")
    if index.isdecimal() and index.isascii() and len(index) < 10 and int(index) < len(places):
        parameter, group = places[int(index)]
        if name in _names(optimizer, group):
            return parameter, bool(group.get("fused")), name
    raise DamagedError(f"{key!r} is no part of this optimizer's state", where=where)


def _names(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> set[str]:
    """The parts of what is remembered of a parameter of the group."""
    momentum = isinstance(optimizer, torch.optim.SGD) or group["matrix"]
    return {"momentum_buffer"} if momentum else {"step", "exp_avg", "exp_avg_sq"}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
