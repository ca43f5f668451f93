"""A process that imports torch once and forks a child for each run asked for: thousands of real kills at a few hundredths of a second each.

The parent runs no operation of torch and has one thread, so that a fork is safe. Requests and answers are lines of JSON on standard
input and output; the child's last word is its exit status, of which -9 is a kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

THREADS = 1
LIMIT = 120.0  # seconds that a run may take: one that hangs is a failure


def variants() -> dict[str, Callable[[Path, int | None], Any]]:
    """name -> a run of that kind in a folder, with another number of workers where one is given."""
    from dataclasses import replace
    from functools import partial

    import small_jobs
    from doors import test_toy_gan
    from saccade.core.config import AugmentConfig
    from saccade.tasks.instances.task import Instances

    every = AugmentConfig(flip=0.5, crop=0.6, rotate=10, color=0.3, erase=0.3, mixup=0.3, cutmix=0.3)

    def classify(workers: int = 0, **changes: Any) -> Callable[[Path, int | None], Any]:
        def make(path: Path, others: int | None) -> Any:
            config = replace(small_jobs.CONFIG, **changes)
            facts = small_jobs.resolved(workers=workers if others is None else others)
            return small_jobs.job(path, config, replace(facts, threads=1, precision=config.precision))

        return make

    def poisoned(on_nan: str) -> Callable[[Path, int | None], Any]:
        def make(path: Path, others: int | None) -> Any:
            from faults.test_numbers import PLAIN, poison

            plain = classify(on_nan=on_nan, augment=PLAIN.augment)(path, others)
            gone_back = any(event["event"] == "back" for event in plain.run.events())
            if gone_back:  # a rate that was too high: it does no harm again
                return plain
            bad = {33, 45}
            append = plain.run.append_event

            def told(row: Any) -> None:
                append(row)
                if row["event"] == "back":
                    bad.clear()

            plain.run.append_event = told
            return poison(plain, bad)

        return make

    def edited(path: Path, workers: int | None) -> Any:
        from saccade.editing.live import Editor
        from saccade.tasks.classification.task import Classification
        from saccade.training import begun

        begun.MOST = 1000  # else what is killed twice while it is made is left out
        edits = ("at step 3: widen features.0.0 1.5", "at step 5: deepen features.2 +1", "at epoch 2: early-exit features.1")
        plain = classify(model="small_resnet_32px", edits=edits)(path, workers)
        return replace(plain, editor=Editor(Classification().build, 0))

    def made(name: str, path: Path, workers: int | None) -> Any:
        return small_jobs.making_job(path, name, workers or 0)

    def segments(path: Path, workers: int | None) -> Any:
        from saccade.queries import criterion
        from saccade.queries.rows import ROWS
        from tiny_queries import shrink

        ROWS["panoptic"], criterion.POINTS = shrink(ROWS["panoptic"]), 100  # in this process alone
        return small_jobs.panoptic_job(path, workers or 0)

    return {
        "plain": classify(ema=0.0, clip=0.0),
        "ema": classify(),
        "workers": classify(2),
        "accumulation": classify(micro_batch=4, augment=every),
        "everything": classify(3, micro_batch=2, augment=every, optimizer="sgd", lr=0.01),
        "bf16": classify(precision="bf16"),
        "skip": poisoned("skip"),
        "back": poisoned("back"),
        "edits": edited,
        "gan": lambda path, workers: test_toy_gan.job(path, workers=workers or 0),
        **{name: partial(made, name) for name in ("r3gan", "vqvae")},
        "detector": lambda path, workers: small_jobs.detecting_job(path, workers or 0),
        "classes": lambda path, workers: small_jobs.segmenting_job(path, workers or 0),
        "masks": lambda path, workers: small_jobs.detecting_job(path, workers or 0, Instances()),
        "segments": segments,
    }


def run(path: str, variant: str, workers: int | None, kill: dict[str, Any] | None) -> None:
    """Train to the end from whatever the folder holds; `kill` says where this process ends itself."""
    import torch

    torch.set_num_threads(THREADS)
    from saccade.api.fitting import take_up
    from saccade.training import loop

    loop.CHECKPOINT_SECONDS = 0.0  # after each logged step
    job = variants()[variant](Path(path), workers)
    if kill is not None:
        arm(job, **kill)
    with job.run.lock():
        trainer = loop.Trainer(job)
        take_up(trainer, job.run, job.progress)
        trainer.fit()


def places(job: Any) -> dict[str, tuple[Any, str]]:
    """Where a run can be killed: the owner and the name of each function; "disk" stands for all primitives of the durable writer."""
    from saccade.core.files import Disk
    from saccade.data.loader import Loader
    from saccade.training import ema, step
    from saccade.training.learner import Workshop

    return {
        "load": (Loader, "step"),
        "forward": (job.task.phases(job.model, job.config)[0].modules[0].__class__, "forward"),
        "backward": (step.Updater, "_apply"),
        "optimize": (step.optim, "trained"),
        "average": (ema.Average, "update"),
        "edit": (Workshop, "edited"),
        "evaluate": (type(job.task), "metrics"),
        **{f"disk.{name}": (Disk, name) for name in ("open", "write", "fsync", "rename", "mkdir", "remove", "truncate", "read", "close")},
    }


def arm(job: Any, place: str, number: int, after: bool) -> None:
    """Kill this process at call `number` (from 1) of a place, before it or after it; a write is cut in its middle."""
    owner, name = places(job)[place]
    original: Callable[..., Any] = getattr(owner, name)
    calls = [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        due = calls[0] == number
        if due and not after:
            if name == "write":
                os.write(args[1], bytes(args[2])[: len(args[2]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        value = original(*args, **kwargs)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, counted)


def child(request: dict[str, Any]) -> None:
    """Never returns."""
    code = 1
    try:
        sys.stdin = open(os.devnull)  # noqa: SIM115
        run(request["path"], request["variant"], request.get("workers"), request.get("kill"))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float | None) -> int:
    """The child's exit code, negative for a signal; killed after `seconds`, or where it hangs."""
    end = time.monotonic() + (LIMIT if seconds is None else seconds)
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if seconds is not None else -99


def tell(value: dict[str, Any]) -> None:
    """One line for who asked."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Import all that a run needs, then serve; with a request on the command line: do that one in this process, on two threads."""
    global THREADS
    if len(sys.argv) > 1:
        THREADS = 2
        child(json.loads(sys.argv[1]))
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401
    from filelock import FileLock  # noqa: F401
    from transformers.models.mask2former import modeling_mask2former  # noqa: F401
    from transformers.models.swin import modeling_swin  # noqa: F401

    import small_jobs  # noqa: F401
    import tiny_queries  # noqa: F401
    from doors import test_toy_gan  # noqa: F401
    from faults import test_numbers  # noqa: F401
    from saccade.objects import augmentation as finding  # noqa: F401
    from saccade.objects import loss as of_objects  # noqa: F401
    from saccade.tasks.classification import augmentation, loss, task  # noqa: F401
    from saccade.tasks.classification.models import classifier  # noqa: F401
    from saccade.tasks.generation import augmentation as generating  # noqa: F401
    from saccade.tasks.generation import updates  # noqa: F401
    from saccade.training import loop  # noqa: F401

    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    tell({"ready": os.getpid(), "threads": threads})
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(request)
        tell({"status": wait(pid, request.get("seconds"))})


if __name__ == "__main__":
    main()
