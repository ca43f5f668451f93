"""One process of several that train together: started by `launch`, it does what its first argument names and writes what it found."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIMIT = 120.0


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


def environment(**more: str) -> dict[str, str]:
    """One thread a process, and nothing but this machine's own loop."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **threads, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths, **more}


def launch(world: int, what: str, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Run this file in `world` processes; what each of them found, by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    command = [sys.executable, __file__, what, str(folder), json.dumps(options)]
    started = [
        subprocess.Popen(
            command,
            env=environment(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for one in started:
        _, said = one.communicate(timeout=LIMIT)
        assert one.returncode == 0, said
    return [json.loads((folder / f"{what}-{rank}.json").read_text()) for rank in range(world)]


def train(ranks: Any, folder: Path, options: dict[str, Any]) -> Any:
    """A run of `small_jobs` over all ranks; `poison`: positions whose loss is no number; `stop`: steps after which a signal comes."""
    from faults.test_numbers import poison
    from saccade.core.config import AugmentConfig
    from saccade.core.errors import Interrupted
    from saccade.core.rundir import RunDir
    from saccade.editing.live import Editor
    from saccade.tasks.classification.task import Classification
    from saccade.training.loop import Trainer
    from small_jobs import CONFIG, Stopping, evaluator, job, resolved

    poisoned = set(options.pop("poison", []))
    after, faults = options.pop("stop", 0), options.pop("faults", {})
    stop = Stopping(after if ranks.rank == ranks.world - 1 else 0)  # the last rank alone gets the signal
    if "augment" in options:
        options["augment"] = AugmentConfig(**options["augment"])
    config = replace(CONFIG, **{"optimizer": "sgd", "lr": 0.02, "batch": 8, **options})
    editor = Editor(Classification().build, config.seed)
    facts = replace(resolved(20, every=5), precision=config.precision)
    made = job(folder / "run", config, facts, ranks=ranks, evaluate=evaluator(ranks), progress=stop, editor=editor)
    trainer = Trainer(poison(made, poisoned) if poisoned else made)
    short(trainer, faults)
    if any(made.run.checkpoints.glob("step-*")):
        trainer.resume()
    with contextlib.suppress(Interrupted):
        trainer.fit()
    ranks.first(lambda: None)
    rows = [{k: v for k, v in row.items() if k != "time"} for row in RunDir(folder / "run").metrics()]
    return {"rows": rows, "events": made.run.events()}


def short(trainer: Any, faults: dict[str, str]) -> None:
    """The last rank alone runs out of memory in changes, by their numbers: where it makes room for whole weights to plan or to make them,
    where it tries an edit, builds the new network or moves its moments."""
    from saccade.training import learner, optim, sharding

    making: list[bool] = []

    def falls(owner: Any, name: str, place: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            now = {"room": "gathering" if making else "looking"}.get(place, place)
            if trainer.job.ranks.rank == trainer.job.ranks.world - 1 and faults.get(str(trainer.state.changes)) == now:
                raise MemoryError
            making.extend([True] * (place == "edited"))
            try:
                return original(*args, **kwargs)
            finally:
                if place == "edited":
                    making.clear()

        setattr(owner, name, call)

    falls(learner.Workshop, "edited", "edited")
    falls(sharding, "_room", "room")
    falls(learner.Workshop, "check", "checking")
    falls(learner.Workshop, "_made", "building")
    falls(optim, "take", "moments")


def whole(ranks: Any, folder: Path, options: dict[str, Any]) -> Any:
    """Weights that are spread, of odd lengths too, put together and spread again; what is said where the last rank has no room for them."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from saccade.core.errors import UserError
    from saccade.nn.weights import like
    from saccade.training import sharding

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.Linear(4, 1), torch.nn.Linear(1, 7))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fully_shard(net, mesh=init_device_mesh("cpu", (ranks.world,)))
    spread: dict[str, Any] = net.state_dict()
    together = sharding.whole(spread)
    parts = [
        torch.equal(like(before[name], value).to_local(), value.to_local()) for name, value in spread.items() if hasattr(value, "to_local")
    ]
    if ranks.rank == ranks.world - 1:
        sharding._room = lambda *_: bytearray(1 << 60)  # type: ignore[assignment,return-value]
    try:
        sharding.whole(spread)
        said = ""
    except UserError as error:
        said = str(error)
    return {"same": [torch.equal(together[name], value) for name, value in before.items()], "parts": parts, "said": said}


def norm(ranks: Any, folder: Path, options: dict[str, Any]) -> Any:
    """Synchronised batch normalisation on this rank's part of a batch against torch's on the whole: the largest differences."""
    import torch
    from timm.layers import BatchNormAct2d
    from torch import nn

    from saccade.nn.layers.sync_norm import synchronise

    found = {}
    for name, make, shape in (
        ("2d", lambda: nn.BatchNorm2d(3), (6, 3, 5, 4)),
        ("1d", lambda: nn.BatchNorm1d(3), (6, 3)),
        ("mean of all", lambda: nn.BatchNorm2d(3, momentum=None), (6, 3, 2, 2)),
        ("no weights", lambda: nn.BatchNorm2d(3, affine=False), (6, 3, 2, 2)),
        ("no statistics", lambda: nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 2, 2)),
        ("act", lambda: BatchNormAct2d(3), (6, 3, 4, 4)),
    ):
        torch.manual_seed(0)
        whole, mine = nn.Sequential(make()), nn.Sequential(make())
        synchronise(mine)
        mine.load_state_dict(whole.state_dict())
        x, weight = torch.randn(shape) * 3 + 1, torch.randn(shape)
        part = slice(0, 4) if ranks.rank == 0 else slice(4, 6)  # shares need not be equal
        theirs, ours = x.clone().requires_grad_(), x[part].clone().requires_grad_()
        differences = []
        for _ in range(2):
            a, b = whole(theirs), mine(ours)
            (a * weight).sum().backward()
            (b * weight[part]).sum().backward()
            differences.append((a[part] - b).abs().max())
        differences.append((theirs.grad[part] - ours.grad).abs().max())
        gradients = [p.grad for p in mine.parameters()]
        ranks.add_up(gradients)
        differences += [(p.grad - g).abs().max() for p, g in zip(whole.parameters(), gradients, strict=True)]
        differences += [(a - b).abs().max() for a, b in zip(whole.buffers(), mine.buffers(), strict=True)]
        differences.append((whole.eval()(x) - mine.eval()(x)).abs().max())
        found[name] = max(one.item() for one in differences)
    return found


def talk(ranks: Any, folder: Path, options: dict[str, Any]) -> Any:
    """All that ranks say to each other."""
    import numpy as np
    import torch

    from saccade.core.errors import OtherRankError, UserError

    def fail() -> None:
        raise UserError("no")

    found: dict[str, Any] = {"told": ranks.first(lambda: {"rank": ranks.rank})}
    order: list[int] = []
    ranks.after_first(lambda: order.append(len(list(folder.glob("mark-*")))) or (folder / f"mark-{ranks.rank}").touch())
    found["marks"] = order[0]
    found["highest"] = ranks.highest([ranks.rank, -ranks.rank])
    found["summed"] = ranks.summed([1, 0.5 * ranks.rank])
    tensors = [torch.full((3, 2), float(ranks.rank)).T, torch.ones(2, dtype=torch.float64) * ranks.rank, torch.ones(())]
    ranks.add_up(tensors)
    found["added"] = [tensor.tolist() for tensor in tensors]
    found["gathered"] = ranks.gathered(np.array([[ranks.rank, 10 + ranks.rank]])).tolist()
    net = torch.nn.Linear(2, 1)
    ranks.same(net)
    found["same"] = net.weight.tolist()
    try:
        ranks.first(fail)
    except (UserError, OtherRankError) as error:
        found["failed"] = type(error).__name__
    return found


def shared(ranks: Any, folder: Path, options: dict[str, Any]) -> Any:
    """The figures of one model by all ranks together, and by this one alone."""
    import torch

    from saccade.tasks.classification.task import Classification
    from saccade.training.ranks import Ranks
    from small_jobs import CARD, evaluator

    torch.manual_seed(3)
    model = Classification().build(CARD)
    return {"shared": evaluator(ranks)(model), "alone": evaluator(Ranks())(model)}


def hang(ranks: Any, folder: Path, options: dict[str, Any]) -> Any:
    """The last rank does not answer; the others must not wait for ever."""
    import time

    from saccade.training.ranks import LostRankError

    if ranks.rank == ranks.world - 1:
        while not (folder / "given up").exists():
            time.sleep(0.05)
        return {}
    began = time.monotonic()
    try:
        ranks.summed([1.0])
    except LostRankError as error:
        return {"said": str(error), "seconds": time.monotonic() - began}
    finally:
        (folder / "given up").touch()


def command(arguments: list[str], kills: list[tuple[int, int]]) -> int:
    """`saccade` as torchrun starts it, with a checkpoint a step; the n-th start ends in SIGKILL of rank and step `kills[n]`."""
    from saccade.cli.main import main
    from saccade.training import loop

    loop.CHECKPOINT_SECONDS = 0.0
    turn = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    rank, at = kills[turn] if turn < len(kills) else (-1, -1)
    step = loop.Trainer._step

    def killed(trainer: Any, batches: Any) -> None:
        if trainer.state.step == at and trainer.job.ranks.rank == rank:
            Path(f"{trainer.job.run.path}.killed-{turn}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        step(trainer, batches)

    loop.Trainer._step = killed  # type: ignore[method-assign]
    return main(arguments)


def called(thread: Path) -> str:
    """The name of a thread, "" of one that has ended meanwhile."""
    try:
        return thread.read_text()
    except OSError:
        return ""


def main() -> None:
    """Meet the others and work."""
    from saccade.training import ranks as module

    if sys.argv[1] == "command":
        sys.exit(command(json.loads(sys.argv[2]), json.loads(sys.argv[3])))
    what, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    if what == "hang":
        module.HANG = datetime.timedelta(seconds=options["seconds"])
    with module.Ranks.joined() as ranks:
        found = {"train": train, "norm": norm, "talk": talk, "shared": shared, "hang": hang, "whole": whole}[what](ranks, folder, options)
    left = [name for name in map(called, Path("/proc/self/task").glob("*/comm")) if "gloo" in name]
    assert what in ("hang", "whole") or options.get("shard") or not left, "a thread of the group that lives on at the exit may abort it"
    (folder / f"{what}-{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
