"""A small process that saves into a run folder as a training run does, over and over, so that a fault can meet any of its system calls.

`main` imports once and forks a child for each save; the child waits for a signal first, so that `strace` can attach to it and sees the
save's own system calls and nothing of Python's start. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from saccade.cli.main import _failed
from saccade.core import files, modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.modelfile import Buffer
from saccade.core.rundir import RunDir

CARD = Card("classify", ("cat", "dog"), {"source": "saccade", "name": "tiny", "arguments": {}}, InputSpec(3, (8, 8)))
ROWS = 2  # lines of metrics a step
ANY_PROCESS, SET_PTRACER = -1, 0x59616D61  # <sys/prctl.h>: who may trace this process


def tensors(step: int, size: int, version: int = 0) -> dict[str, Buffer]:
    """About `size` bytes that are a function of the arguments alone."""
    names = {"bias": 1, "head": 3, "stem": 12}
    found = {}
    for name, share in names.items():
        count = max(4, size * share // 16 // 4 * 4)
        found[name] = Buffer("U8", (count,), hashlib.shake_128(f"{name} {step} {version}".encode()).digest(count))
    return found


def rows(step: int) -> list[dict[str, Any]]:
    """The lines of metrics of one step."""
    return [{"step": step, "part": part, "loss": 1 / (1 + step + part)} for part in range(ROWS)]


def lines(step: int) -> bytes:
    """What metrics.jsonl must hold up to `step`."""
    return "".join(f"{files.dumps(row)}\n" for number in range(1, step + 1) for row in rows(number)).encode()


def contents(step: int, size: int, version: int = 0) -> dict[str, bytes]:
    """The files of the checkpoint of a step."""
    state = {"step": step, "version": version, "metrics_bytes": len(lines(step))}
    half = size // 2
    return {
        "model.safetensors": modelfile.pack(tensors(step, half, version)),
        "optimizer-main.safetensors": modelfile.pack(tensors(step, half, version + 100)),
        "state.json": files.dumps(state).encode(),
    }


def save(folder: Path, step: int, size: int, version: int = 0) -> None:
    """Take up what the folder holds, or begin, and go on to `step`."""
    resume = os.path.isfile(folder / "run.json")
    go_on(RunDir.at(folder, resume=resume), resume, step, size, version)


def go_on(run: RunDir, resume: bool, step: int, size: int, version: int) -> None:
    """One process's part of a run, in the order of `api.training` and `training.loop`."""
    with run.lock():
        done = _take_up(run) if resume else 0
        if not resume:
            run.write_run({"state": "running", "steps": 0, "version": 0})
        run.append_metrics([row for number in range(done + 1, step + 1) for row in rows(number)])
        modelfile.save(run.best, tensors(step, size // 2, version), CARD.with_metrics({"step": step, "version": version}))
        run.save_checkpoint(step, contents(step, size, version), keep=2)
        run.update_run({"state": "done", "steps": step, "version": version})


def _take_up(run: RunDir) -> int:
    """The step that the folder stands at, with the lines after it cut off."""
    run.update_run({"state": "running"})
    if not run.has_checkpoint():
        run.truncate_metrics(0)
        return 0
    step, found, _ = run.load_checkpoint()
    run.truncate_metrics(json.loads(found["state.json"])["metrics_bytes"])
    return step


def child(request: dict[str, Any], ready: int) -> None:
    """Say that this process waits, wait for the go-ahead, save, and end as a command ends; never returns."""
    os.dup2(os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    ctypes.CDLL(None).prctl(SET_PTRACER, ANY_PROCESS, 0, 0, 0)  # where the kernel lets only parents trace (Yama)
    os.close(ready)
    signal.sigwait({signal.SIGUSR1})
    code = 1
    try:
        save(Path(request["folder"]), request["step"], request["size"], request["version"])
        code = 0
    except Exception as error:
        code = _failed(error, as_json=False)
    finally:
        sys.stderr.flush()
        os._exit(code)


def tell(answer: dict[str, int]) -> None:
    """One line for who asked."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer each request twice: with the child's number at once, and with its exit status at its end."""
    from filelock import FileLock  # noqa: F401  not in the child, whose calls are counted

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for line in sys.stdin:
        told, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(json.loads(line), ready)
        os.close(ready)
        os.read(told, 1)
        os.close(told)
        tell({"pid": pid})
        tell({"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


if __name__ == "__main__":
    main()
