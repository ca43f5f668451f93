"""Forward hooks that belong to a place of a network, and not to the module that stands there at first.

Others, as those that a library puts in by the types of modules when a network is first used, stay with their module: whether an edit
comes before or after that must not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Hook = TypeVar("Hook", bound=Callable[..., Any])
_MARK = "of_place"


def of_place(hook: Hook) -> Hook:
    """Mark a forward hook as one that is about what a place of the network gives, whatever comes to stand there."""
    setattr(hook, _MARK, True)
    return hook


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Move the hooks of a place from the module that stood there to the one that does now."""
    for key in [key for key, hook in old._forward_hooks.items() if getattr(hook, _MARK, False)]:
        new._forward_hooks[key] = old._forward_hooks.pop(key)
