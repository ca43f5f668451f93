"""The clock on the wall may jump by years at any moment: no bit, no order and no time limit hangs on it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from faults.commands import TINY, make_data, paused, run, wait_for
from saccade.core.progress import Silent
from saccade.core.rundir import RunDir
from saccade.data import cache
from saccade.data.opening import open_dataset
from small_jobs import Outcome
from source_tree import Source, sources

DECADE = 10 * 365.25 * 86_400
WALL = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime", "time.asctime"}
WALL |= {f"{owner}.{name}" for owner in ("datetime", "date", "datetime.datetime", "datetime.date") for name in ("now", "utcnow", "today")}
# file -> function -> why it may look at the clock on the wall
ALLOWED = {
    "api/fitting.py": {"record": "when the run began, for people", "_times": "when it ended, for people"},
    "api/exporting.py": {"_facts": "when the proof was made, for people"},
    "data/cache.py": {"_make_room": "the age of what killed processes left; a wrong answer costs a decoding, see below"},
}


def looks(source: Source) -> list[tuple[str, int]]:
    """(function, line) of each use of the wall's clock; also the bare name of what was imported from `time`."""
    own = {node.module: {alias.asname or alias.name: alias.name for alias in node.names} for node in ast.walk(source.tree)
           if isinstance(node, ast.ImportFrom) and node.module == "time"}  # fmt: skip
    short = {name for name, original in own.get("time", {}).items() if f"time.{original}" in WALL}
    found: list[tuple[str, int]] = []

    def walk(node: ast.AST, function: str) -> None:
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in WALL) or (isinstance(node, ast.Name) and node.id in short):
            found.append((inside, node.lineno))
            return
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(source.tree, "")
    return found


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_nothing_else_looks_at_the_wall(source: Source) -> None:
    allowed = ALLOWED.get(source.path, {})
    assert [(function, line) for function, line in looks(source) if function not in allowed] == []
    assert allowed.keys() == {function for function, _ in looks(source)}, "an exception that nobody needs any more"


@pytest.mark.parametrize(
    "text",
    ["import time\ntime.time()", "from time import time as now\nnow()", "import datetime\ndatetime.datetime.now()", "f = time.time_ns"],
)
def test_the_gate_sees_it(text: str) -> None:
    assert looks(Source("core/x.py", text, ast.parse(text)))


def test_the_gate_lets_pass_what_does_not_jump() -> None:
    text = "import time\nfrom time import monotonic\ntime.monotonic(), monotonic(), time.perf_counter(), time.sleep(1)"
    assert looks(Source("core/x.py", text, ast.parse(text))) == []


# The cache of pixels


def load(root: Path, folder: Path, name: str, apply: object = None) -> tuple[cache.Store, list[cache.BadFile]]:
    dataset = open_dataset(root)
    preparation = cache.Preparation(name, apply or (lambda pixels: pixels))  # type: ignore[arg-type]
    return cache.load(dataset, np.arange(len(dataset)), preparation, progress=Silent(), workers=1, folder=folder)


@pytest.mark.parametrize("jump", [-DECADE, DECADE])
def test_the_cache_survives_a_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """Set back: what was left behind stays for longer. Set forward: what others are writing just now is taken for left behind, and
    they go on without keeping it. In no case is an entry lost, or a pixel another."""
    data, folder = make_data(tmp_path / "data"), tmp_path / "cache"
    load(data, folder, "before")
    kept = sorted(folder.iterdir())
    (folder / "0123.left").write_bytes(b"half")
    real = time.time
    beside: list[object] = []

    def meanwhile(pixels: np.ndarray) -> np.ndarray:
        """While this process reads, the clock jumps and another one makes room."""
        if not beside:
            monkeypatch.setattr(cache.time, "time", lambda: real() + jump)
            beside.append(load(data, folder, "beside"))
        return pixels

    store, bad = load(data, folder, "slow", meanwhile)
    assert bad == [] and len(store) == 24
    assert isinstance(store, cache.KeptStore if jump < 0 else cache.DecodingStore)
    dataset = open_dataset(data)
    assert all(np.array_equal(store[place], dataset[place].image) for place in range(24))
    assert set(kept) <= set(folder.iterdir())
    assert (folder / "0123.left").exists() == (jump < 0)
    monkeypatch.undo()  # a clock that has jumped for good dates files too, which cannot be shown in one process
    assert isinstance(load(data, folder, "slow")[0], cache.KeptStore), "kept the next time"


def test_a_cache_that_is_cleared_while_it_is_filled(tmp_path: Path) -> None:
    """Somebody empties ~/.cache: images are decoded at each access then."""
    data, folder = make_data(tmp_path / "data"), tmp_path / "cache"

    def clear(pixels: np.ndarray) -> np.ndarray:
        for path in folder.iterdir() if folder.exists() else ():
            path.unlink()
        if folder.exists():
            folder.rmdir()
        return pixels

    store, bad = load(data, folder, "cleared", clear)
    assert isinstance(store, cache.DecodingStore) and bad == []
    (data / "red" / "2.png").write_bytes(b"broken")
    store, bad = load(data, folder, "cleared", clear)
    assert len(store) == 23 and [file.path for file in bad] == ["red/2.png"]


# A whole run


@pytest.mark.processes
@pytest.mark.parametrize("jump", [-DECADE, DECADE])
def test_a_run_whose_clock_jumps_is_the_same(tmp_path: Path, jump: float) -> None:
    data = make_data(tmp_path / "data")
    train = ["train", str(data), *TINY, "--epochs", "4", "--workers", "2"]
    quick = ("no_report", {})
    assert run(tmp_path, *train, "--out", "whole", hooks=[quick])[0] == 0
    hooks = [quick, ("checkpoint_each_step", {}), ("jump", {"seconds": jump, "step": 5})]
    child, go = paused(tmp_path, *train, "--out", "r", at=("saccade.training.loop:Trainer", "_step", 8), hooks=hooks)
    child.send(15)
    go.touch()
    assert child.wait() == 143, child.errors
    code, child = run(tmp_path, "train", "--resume", "--out", "r", hooks=[quick, ("jump", {"seconds": -jump, "step": 0})])
    assert code == 0, child.errors
    assert Outcome.of(RunDir(tmp_path / "r")).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []
    assert 0 <= RunDir(tmp_path / "r").read_run()["time"]["seconds"] < 600, "lengths of time come from a clock that does not jump"


LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.mark.processes
@pytest.mark.slow  # nine seconds on a quiet machine, minutes on a busy one: the library asks a file for the time
@pytest.mark.skipif(not LIBRARIES, reason="no libfaketime (apt-get install faketime)")
def test_a_real_process_whose_system_clock_jumps(tmp_path: Path) -> None:
    """libfaketime under the whole process: its clock is set back ten years, then on by twenty, while it trains."""
    data = make_data(tmp_path / "data")
    train = ["train", str(data), *TINY, "--epochs", "200", "--no-images", "--set", "patience=0"]
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    fake = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    fake["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # or it would look for fonts first
    env = {**os.environ, **one, **fake, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "XDG_CACHE_HOME": str(tmp_path)}
    out = tmp_path / "r"
    with subprocess.Popen([sys.executable, "-m", "saccade", *train, "--out", str(out)], env=env, stderr=subprocess.PIPE) as process:
        for moment, value in (("tensorboard", "-10y\n"), ("best.safetensors", "+10y\n")):
            wait_for((out / moment).exists, 300)
            clock.write_text(value)
        errors = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, errors
    assert run(tmp_path, *train, "--out", "whole", hooks=[("no_report", {})])[0] == 0
    assert Outcome.of(RunDir(out)).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []
    times = RunDir(out).read_run()["time"]
    assert times["ended"][:4] != times["started"][:4], "the clock has jumped"
    assert 0 < times["seconds"] < 300
