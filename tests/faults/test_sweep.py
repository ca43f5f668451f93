"""A save meets a fault at each of its system calls: a drawn sample of what benchmarks/sweep.py tries in full."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import saver
from faults.sweep import FAST, FAULTS, MODES, Point, Savers, Sweep, Verdict, judge_state, missing

pytestmark = [pytest.mark.processes, pytest.mark.long]
SIZE = 400_000


@pytest.fixture
def sweep() -> Iterator[Sweep]:
    if why := missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else None) as scratch:
        savers = Savers(Path(scratch))
        yield Sweep(savers, Path(scratch))
        savers.close()


def sample(points: list[Point], draws: random.Random, most: int) -> list[Point]:
    """Every lie, and a kill at each rename, where the old may be gone and the new not there yet; each call and fault once; then any."""
    draws.shuffle(points)
    points.sort(key=lambda point: not _is_delicate(point))
    once = {(point.call, point.fault, point.number if _is_delicate(point) else 0): point for point in points}
    rest = [point for point in points if point not in once.values()]
    return [*once.values(), *rest][:most]


def _is_delicate(point: Point) -> bool:
    return point.fault == "lie" or (point.fault, point.call) == ("KILL", "rename")


def test_a_save_survives_a_fault_at_any_call(sweep: Sweep) -> None:
    draws, tried, wrong = random.Random("sweep"), Counter[str](), list[tuple[Point, str, str]]()
    for mode in MODES:
        points = list(sweep.points(mode, SIZE))
        assert len(points) > 400, "a save makes more calls than that"
        for point in sample(points, draws, 90 if mode == "next" else 30):
            tried[point.fault] += 1
            wrong += [(point, *one) for one in sweep.try_at(point).wrong]
    assert not wrong, "\n".join(map(str, wrong))
    assert tried.keys() == FAULTS.keys()
    assert tried.total() == 210


def test_a_look_at_the_folder_that_fails_is_one_line(sweep: Sweep) -> None:
    """All of them: pathlib answers some errors with an exception, some with False, so each place is a case of its own."""
    looks = [point for point in sweep.points("next", 4000) if (point.fault, point.call) == ("EIO", "newfstatat")]
    assert len(looks) > 50
    wrong = [(point, *one) for point in looks for one in sweep.try_at(point).wrong]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_judge_sees_a_mixed_and_a_missing_state(sweep: Sweep) -> None:
    """Or the sweep would show nothing: the same checks over folders with a defect in them."""
    harm = {
        "lost": lambda run: [path.unlink() for path in run.glob("checkpoints/*/MANIFEST.json")],
        "mixed": lambda run: saver.RunDir(run).save_checkpoint(2, {**saver.contents(2, SIZE), "model.safetensors": b"other"}),
        "metrics": lambda run: (run / "metrics.jsonl").write_bytes(saver.lines(3)[7:]),
        "best": lambda run: (run / "best.safetensors").write_bytes(b"cut"),
        "record": lambda run: (run / "run.json").unlink(),
    }
    for name, change in harm.items():
        place = sweep.scratch / name
        for step in (1, 2):
            saver.save(place, step, SIZE)
        clean = Verdict()
        judge_state(clean, place, Point("next", SIZE, "write", "EIO", 1), acknowledged=False)
        assert not clean.wrong, "what was there before is fine where the save failed"
        for step in (1, 2):
            saver.save(sweep.scratch / f"{name}-harmed", step, SIZE)
        change(sweep.scratch / f"{name}-harmed")
        for acknowledged in (False, True):
            verdict = Verdict()
            judge_state(verdict, sweep.scratch / f"{name}-harmed", Point("next", SIZE, "write", "EIO", 1), acknowledged=acknowledged)
            assert verdict.wrong, (name, acknowledged)


def test_a_success_that_saved_nothing_is_a_false_one(sweep: Sweep) -> None:
    for step in (1, 2):
        saver.save(sweep.scratch / "old", step, SIZE)
    verdict = Verdict()
    judge_state(verdict, sweep.scratch / "old", Point("next", SIZE, "write", "lie", 1), acknowledged=True)
    assert {kind for kind, _ in verdict.wrong} == {"false success"}
