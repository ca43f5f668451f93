"""`torch.compile` for networks in training."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from saccade.core.errors import UserError
from saccade.nn.layers.exits import Exit
from saccade.nn.layers.keyed import KeyedDropout


def check(device: torch.device) -> None:
    """Compile something small. Raises UserError where that does not work here, for want of a compiler for one."""
    try:
        _without_pickles()
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # of Dynamo, Inductor, Triton or the compiler: each has classes of its own
        first = str(error).strip().splitlines() or [type(error).__name__]
        fix = "leave --compile out, or install a C++ compiler (apt-get install g++)"
        raise UserError(f"torch.compile does not work here: {first[0][:200]}", where="--compile", fix=fix) from None


def compiled(network: nn.Module) -> None:
    """Have `network` compiled when it is first called: names and weights stay what they are. What was compiled before is given up, or
    networks that are edited again and again would come to the limit of what torch keeps."""
    _without_pickles()
    torch.compiler.reset()
    for module in network.modules():
        kind = next((kind for kind in (KeyedDropout, Exit) if isinstance(module, kind)), None)
        if kind is not None:
            module.__class__ = _eager(kind)
    network.compile()


def _without_pickles() -> None:
    """Torch keeps graphs in a folder of temporary files, which it unpickles without asking whose they are."""
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    inductor.fx_graph_cache = inductor.fx_graph_remote_cache = False
    functorch.enable_autograd_cache = False


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


@functools.cache
def _eager(kind: type[nn.Module]) -> Any:
    """Modules of a kind that stay outside of what is compiled: what they draw is new in each step, who listens to them may be another."""
    return type("Eager", (kind,), {"forward": torch.compiler.disable(kind.forward)})
