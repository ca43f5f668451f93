"""Batch normalisation over the images of all processes, on a processor too, where torch's own SyncBatchNorm refuses to work."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs, since each one's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation (Ioffe & Szegedy 2015) whose mean and variance in training are those of all processes' images together.

    `[B, C, ...]` -> the same shape; B may differ between processes, but none may have 0.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        """As torch's in evaluation mode."""
        if not (self.training or self.running_mean is None):
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([x.sum(axes), count]))
        total = sums[-1]
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / total
        with torch.no_grad():
            self._follow(mean, variance * (total / (total - 1).clamp(min=1)))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Take mean and unbiased variance up into the running ones."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Followed(SyncBatchNorm):
    """The same for timm's normalisation with an activation behind it: keeps both modules where they stand."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, drop, activate."""
        return self.act(self.drop(super().forward(input)))  # type: ignore[operator]


def synchronise(network: nn.Module) -> None:
    """Put `SyncBatchNorm` in the place of every batch normalisation inside `network`; parameters, buffers and names stay what they are."""
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm | nn.SyncBatchNorm):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, _synchronised(module))


def _synchronised(module: Any) -> nn.Module:
    followed = hasattr(module, "act") and hasattr(module, "drop")
    kind = nn.SyncBatchNorm if module.weight is not None and module.weight.is_cuda and not followed else SyncBatchNorm
    made: Any = (_Followed if followed else kind)(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
    )
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(module, name))
    if followed:
        made.act, made.drop = module.act, module.drop
    return made.train(module.training)
