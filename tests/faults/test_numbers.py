"""Losses and gradients that are no finite number, and memory that does not suffice: what the run does, and that resume does it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.core import modelfile
from saccade.core.errors import Interrupted, UserError
from saccade.core.progress import Silent
from saccade.training import loop, recovery
from saccade.training.loop import Job, Trainer
from small_jobs import CONFIG, STEPS, Stopping, fit, go_on, job, one_thread  # noqa: F401

PLAIN = replace(CONFIG, augment=replace(CONFIG.augment, cutmix=0.0, mixup=0.0))


def poison(made: Job, bad: set[int], what: str = "loss", harm: float = float("nan")) -> Job:
    """The run's loss is `harm` whenever a position of `bad` is in the batch (or its gradient, where `what` says so)."""
    task = made.task
    phases = task.phases

    def spoiled(model: nn.Module, config: Any) -> Any:
        (phase,) = phases(model, config)

        def loss(batch: Any, step: int) -> Any:
            losses = phase.loss(batch, step)
            if bad & set(batch.positions.tolist()):
                if what == "loss":
                    return replace(losses, total=losses.total * harm)
                # Finite itself: the derivative of a root at zero is infinite.
                return replace(losses, total=losses.total + (next(model.parameters()).sum() * 0).abs().sqrt())
            return losses

        return [replace(phase, loss=loss)]

    task.phases = spoiled  # type: ignore[method-assign]
    return made


def events(made: Job) -> list[dict[str, Any]]:
    return made.run.events()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_it_stops_before_the_step_and_says_where(tmp_path: Path, what: str) -> None:
    made = poison(job(tmp_path, PLAIN), {33}, what)  # of step 5
    trainer = Trainer(made)
    with pytest.raises(UserError) as told:
        trainer.fit()
    name = made.loader.names(np.array([33]))[0]
    assert f"the {what} of phase 'train' is no longer a finite number at step 5" in str(told.value)
    assert "--on-nan" in told.value.fix
    assert (repr(name) in str(told.value)) == (what == "loss")
    with np.load(tmp_path / "not-finite" / "step-000000005.npz") as kept:
        assert kept["positions"].tolist() == list(range(30, 36))
        assert kept["names"].astype(str).tolist() == made.loader.names(kept["positions"])
        assert kept["images-0"].shape == (6, 3, 16, 16)
    clean = Trainer(job(tmp_path / "clean", PLAIN))
    for _ in range(5):
        clean._step(next(iter([clean.job.loader.step(clean.state.position)])))
    for (key, mine), theirs in zip(trainer.learner.model.state_dict().items(), clean.learner.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), f"{key} was changed"


def test_the_first_module_is_named(tmp_path: Path) -> None:
    made = job(tmp_path, PLAIN)
    layer = made.model.network.features[1][0].conv1  # type: ignore[union-attr,index]
    calls = [0]

    def break_it(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls[0] += module.training
        return output * float("inf") if calls[0] >= 4 else output

    layer.register_forward_hook(break_it)
    with pytest.raises(UserError, match=r"first in 'network\.features\.1\.0\.conv1'"):
        Trainer(made).fit()


def test_a_step_is_left_out_and_a_resumed_run_leaves_it_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(PLAIN, on_nan="skip")
    made = poison(job(tmp_path / "whole", config), {33, 40})
    whole = fit(made)
    assert [(e["event"], e["step"], e["what"]) for e in events(made)] == [("skip", 5, "loss"), ("skip", 6, "loss")]
    assert all(np.isfinite(np.frombuffer(b.data, np.float32)).all() for b in _floats(made.run.last))
    with pytest.raises(Interrupted):
        Trainer(poison(job(tmp_path / "cut", config, progress=Stopping(4)), {33, 40})).fit()
    again = poison(job(tmp_path / "cut", config), {33, 40})
    assert go_on(again).differs(whole) == []
    assert events(again) == events(made)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)
    late = tmp_path / "late"
    with pytest.raises(RuntimeError, match="power"):
        Trainer(poison(job(late, config, progress=_Cut(8)), {33, 40})).fit()
    fresh = poison(job(late, config), {33, 40})
    assert fit(fresh).differs(whole) == [], "the skips of the lost history are met again"
    assert events(fresh) == events(made), "and told once"


class _Cut(Silent):
    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, n: int = 1) -> None:
        self.left -= 1
        if not self.left:
            raise RuntimeError("power failure")


def _floats(path: Path) -> list[modelfile.Buffer]:
    return [buffer for buffer in modelfile.load(path)[0].values() if buffer.dtype == "F32"]


def test_too_many_left_out_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOST_SKIPPED", 3)
    made = poison(job(tmp_path, replace(PLAIN, on_nan="skip")), set(range(12, 72)))
    with pytest.raises(UserError, match="at step 5"):
        Trainer(made).fit()
    assert [e["step"] for e in events(made)] == [2, 3, 4]


@pytest.mark.parametrize("checkpoints", [0.0, 1e9])
def test_it_goes_back_and_on_at_half_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: float) -> None:
    """Poisoned once: after going back, the same images do no harm (a rate that was too high)."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", checkpoints)
    config = replace(PLAIN, on_nan="back")
    bad = {45}  # of step 7
    made = job(tmp_path / "whole", config, progress=Stopping())
    forgive(poison(made, bad), bad)
    whole = fit(made)
    (event,) = events(made)
    to = 7 if checkpoints == 0 else 4  # the evaluation of step 4 keeps a checkpoint of its own
    assert (event["event"], event["step"], event["to"]) == ("back", 7, to)
    rates = {row["step"]: row["lr"] for row in made.run.metrics() if "lr" in row}
    normal = fit(job(tmp_path / "normal", PLAIN))
    expected = {row["step"]: row["lr"] * (0.5 if row["step"] > to else 1) for row in normal.rows if "lr" in row}
    assert rates == pytest.approx(expected)
    assert sorted(rates) == list(range(1, STEPS + 1)), "no line lost or doubled"
    if checkpoints == 0:
        again, bad = job(tmp_path / "cut", config, progress=Stopping(9)), {45}
        forgive(poison(again, bad), bad)
        with pytest.raises(Interrupted):
            Trainer(again).fit()
        assert go_on(job(tmp_path / "cut", config)).differs(whole) == []


def forgive(made: Job, bad: set[int]) -> None:
    """Harm once, not again."""
    keep = made.run.append_event

    def told(row: Any) -> None:
        bad.clear()
        keep(row)

    made.run.append_event = told  # type: ignore[method-assign]


def test_going_back_again_and_again_ends_it(tmp_path: Path) -> None:
    made = poison(job(tmp_path, replace(PLAIN, on_nan="back")), {45})
    with pytest.raises(UserError, match="at step 7"):
        Trainer(made).fit()
    assert [e["event"] for e in events(made)] == ["back"] * recovery.MOST_BACK


def starve(made: Job, fails: Callable[[int], bool], error: Callable[[], Exception]) -> Job:
    """Memory runs out in a training pass over a number of images where `fails` says so; running statistics have moved by then."""

    def limited(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled() and fails(len(inputs[0])):
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                    part.running_mean.add_(1)
            raise error()

    made.model.register_forward_pre_hook(limited)
    return made


ERRORS: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    "python": MemoryError,
}


@pytest.mark.parametrize("kind", ERRORS)
def test_too_little_memory_halves_the_micro_batch(tmp_path: Path, kind: str) -> None:
    made = starve(job(tmp_path / "starved", progress=Stopping()), lambda count: count > 2, ERRORS[kind])
    starved = fit(made)
    assert [(e["event"], e["step"], e["from"], e["to"]) for e in events(made)] == [("micro_batch", 0, 6, 4), ("micro_batch", 0, 4, 2)]
    assert any("not enough memory" in message for message in made.progress.messages)  # type: ignore[attr-defined]
    small = fit(job(tmp_path / "small", replace(CONFIG, micro_batch=2)))
    assert starved.differs(small) == ["events"], "not the run that was started so"


def test_memory_that_fails_later_is_remembered_by_resume(tmp_path: Path) -> None:
    def made(path: Path, calls: int, **changes: Any) -> Job:
        left = [calls]

        def fails(count: int) -> bool:
            left[0] -= 1
            return left[0] == 0

        return starve(job(path, **changes), fails, lambda: torch.OutOfMemoryError("CUDA out of memory"))

    whole = fit(made(tmp_path / "whole", 6))
    with pytest.raises(Interrupted):
        Trainer(made(tmp_path / "cut", 6, progress=Stopping(9))).fit()
    assert go_on(made(tmp_path / "cut", -1)).differs(whole) == []
    with pytest.raises(RuntimeError, match="power"):
        Trainer(made(tmp_path / "lost", 6, progress=_Cut(8))).fit()
    assert fit(made(tmp_path / "lost", -1)).differs(whole) == [], "the event is replayed although memory suffices now"


def test_one_image_that_does_not_fit_ends_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one image needs more memory"):
        Trainer(starve(job(tmp_path), lambda count: True, MemoryError)).fit()


def test_other_runtime_errors_are_not_taken_for_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        Trainer(starve(job(tmp_path), lambda count: True, lambda: RuntimeError("a defect"))).fit()
