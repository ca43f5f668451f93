"""What torchrun told this process of the others: from the environment alone, so that it costs nothing to ask."""

from __future__ import annotations

import os

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world() -> int:
    """How many processes work on this run; 1 but under torchrun."""
    return int(os.environ["WORLD_SIZE"]) if all(os.environ.get(name) for name in _NEEDED) else 1


def rank() -> int:
    """Which of them this one is, from 0; the first alone writes and speaks."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def local_rank() -> int:
    """Which of those on this host it is: the number of its device."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else 0


def restarts() -> int:
    """How often torchrun has started all of them anew, after one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
