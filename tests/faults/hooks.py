"""What is done in a child of `faults.commands` before its command runs: its world is broken, or it waits at a moment for the test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def checkpoint_each_step() -> None:
    """Instead of once a minute."""
    from saccade.training import loop

    loop.CHECKPOINT_SECONDS = 0.0


def keep_no_pixels() -> None:
    """As for a set too large to keep: images are decoded at each access."""
    from saccade.data import cache

    cache.LIMIT_BYTES = 0


def pause(owner: str, name: str, call: int, reached: str, go: str) -> None:
    """Before call number `call` (from 0) of a function: make the file `reached`, wait for the file `go`.

    owner: `module` or `module:Class`.
    """
    import importlib

    module, _, kind = owner.partition(":")
    holder: Any = importlib.import_module(module)
    holder = getattr(holder, kind) if kind else holder
    original, calls = getattr(holder, name), [0]

    def waits(*args: Any, **kwargs: Any) -> Any:
        if calls[0] == call:
            Path(reached).touch()
            end = time.monotonic() + 60
            while not Path(go).exists() and time.monotonic() < end:
                time.sleep(0.002)
        calls[0] += 1
        return original(*args, **kwargs)

    setattr(holder, name, waits)


def no_report() -> None:
    """What comes after training is left out, where a test is not about it: it takes longer than the training."""
    from saccade.api import reporting

    reporting.write_report = lambda *args, **kwargs: None


def hide_interrupts(owner: str, name: str) -> None:
    """A function that answers whatever goes wrong in it with an error of its own, as compiled code of libraries does with a handler's."""
    import importlib

    holder = importlib.import_module(owner)
    original = getattr(holder, name)

    def hides(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except BaseException:
            raise ValueError("Invalid bounding box") from None

    setattr(holder, name, hides)


def jump(seconds: float, step: int) -> None:
    """Python's clock on the wall jumps before a step."""
    from saccade.training.loop import Trainer

    original, real = Trainer._step, time.time

    def stepped(self: Any, batches: Any) -> None:
        if self.state.step == step or step == 0:
            time.time = lambda: real() + seconds
        original(self, batches)

    Trainer._step = stepped  # type: ignore[method-assign]


def fail_in_loader(error: str, position: int, text: str) -> None:
    """The step that holds a position of the stream cannot be prepared."""
    import builtins

    from saccade.core import errors
    from saccade.data.loader import Loader

    kind: Any = getattr(builtins, error, None) or getattr(errors, error)
    original = Loader.step

    def step(self: Any, start: int) -> Any:
        if start <= position < start + self.batch:
            raise kind(text)
        return original(self, start)

    Loader.step = step  # type: ignore[method-assign]
