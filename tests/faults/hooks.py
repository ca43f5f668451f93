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


PROCESSES = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen")
WATCHED = ("pickle.find_class", "exec", "compile", *PROCESSES)


def audit(log: str) -> None:
    """From here on, a line for each event that could be somebody else's code: the event, what it is about, and who did it."""
    import json
    import pickle
    import sys

    import torch.serialization

    file = open(log, "a")  # noqa: SIM115

    def callers() -> list[str]:
        frame, found = sys._getframe(2), []
        while frame is not None and len(found) < 8:
            if not frame.f_code.co_filename.startswith("<frozen") and frame.f_code.co_filename != __file__:
                found.append(frame.f_code.co_filename)
            frame = frame.f_back  # type: ignore[assignment]
        return found

    def write(event: str, what: str) -> None:
        file.write(json.dumps([event, what[:300], callers()]) + "\n")
        file.flush()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in WATCHED:
            write(event, getattr(args[0], "co_filename", "") if event == "exec" else str(args[1] if event == "compile" else args))

    def told(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            write(f"{owner.__name__}.{name}", "")
            return original(*args, **kwargs)

        setattr(owner, name, call)

    for owner, name in ((pickle, "load"), (pickle, "loads"), (torch.serialization, "load"), (torch, "load")):
        told(owner, name)
    sys.addaudithook(hook)


def misbehave() -> None:
    """One of each thing that an audit must hear."""
    import os
    import pickle
    import subprocess
    import sys

    pickle.loads(pickle.dumps(os.path.join))
    exec(compile("1", "run/state.json", "exec"))
    os.system("true")
    subprocess.run([sys.executable, "-c", ""], check=True)


def peak_memory(log: str) -> None:
    """Write how many megabytes the process has taken at most beyond what it has now."""
    from saccade.cli import main as module

    def taken(name: str) -> float:
        (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(name)]
        return int(line.split()[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the parent
    before, original = taken("VmHWM"), module.main

    def measured(*args: Any, **kwargs: Any) -> int:
        code = original(*args, **kwargs)
        Path(log).write_text(str(taken("VmHWM") - before))
        return code

    module.main = measured
