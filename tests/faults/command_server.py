"""The server behind `faults.commands`: it imports all that a command may load, then forks a child for each one asked for.

It runs no operation of torch and has one thread, so that a fork is safe. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]


def _become(request: Mapping[str, Any]) -> None:
    """The child's own world: session, files, folder, environment, hooks. `None` takes a variable away."""
    os.setsid()
    for number, (name, flags) in enumerate((("/dev/null", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))):
        opened = os.open(os.path.join(request["files"], name), flags | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["cwd"])
    for name, value in request["env"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    from faults import hooks

    for name, options in request["hooks"]:
        getattr(hooks, name)(**options)


def _command(request: Mapping[str, Any]) -> None:
    """Never returns. Threads are waited for as at the interpreter's own end, whose taking apart of all modules would cost a second."""
    code = 1
    try:
        _become(request)
        from saccade.cli.main import main

        sys.argv[1:] = request["argv"]
        code = main()
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.002)


def _serve() -> None:
    """Fork for each request."""
    ended: dict[int, int | None] = {}
    sys.stdout.write(json.dumps({"threads": len(os.listdir("/proc/self/task"))}) + "\n")
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            pid = request["wait"]
            if ended.get(pid) is None:
                ended[pid] = _wait(pid, request["seconds"])
            answer = {"status": ended[pid]}
        else:
            pid = os.fork()
            if pid == 0:
                _command(request)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _import_everything() -> None:
    """All that a training, an evaluation and a prediction load."""
    import captum.attr  # noqa: F401
    import filelock  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import safetensors  # noqa: F401
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401

    import saccade.api.evaluating
    import saccade.api.explaining
    import saccade.api.predicting
    import saccade.api.training
    import saccade.cli.eval
    import saccade.cli.predict
    import saccade.cli.train
    import saccade.explanation.attribution
    import saccade.prediction.torch_session
    import saccade.report.plots
    import saccade.tasks.classification.decode
    import saccade.tasks.classification.task
    import saccade.training.loop  # noqa: F401
    from saccade.core.images import _formats
    from saccade.report.page import _template
    from saccade.tasks.classification import augmentation, loss  # noqa: F401
    from saccade.tasks.classification.models import classifier  # noqa: F401

    _formats(True), _template()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _import_everything()
    gc.freeze()  # or the children's collector would copy every page
    _serve()
    os._exit(0)
