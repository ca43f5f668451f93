"""Several processes train as one: same order, same statistics, same losses, whatever their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from ranked import launch
from saccade.core import requests
from saccade.core.errors import UserError
from saccade.core.rundir import RunDir
from saccade.training.ranks import Ranks, check_batch
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

Rows: TypeAlias = list[dict[str, Any]]  # of metrics.jsonl


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of a run by one process."""
    import guard

    with guard.GUARD.allow("processes", "network"):
        rows: Rows = launch(1, "train", tmp_path_factory.mktemp("alone"))[0]["rows"]
        return rows


def test_alone_nothing_is_sent() -> None:
    ranks = Ranks()
    assert ranks.is_first and ranks.first(lambda: 5) == 5 and ranks.after_first(lambda: 6) == 6
    assert ranks.highest([1, 2]) == ranks.summed([1, 2]) == [1, 2]
    assert ranks.gathered(np.arange(3)).tolist() == [0, 1, 2]
    assert ranks.device("cuda") == "cuda"


def test_what_they_tell_each_other(tmp_path: Path) -> None:
    first, second, third = launch(3, "talk", tmp_path)
    assert first["told"] == second["told"] == third["told"] == {"rank": 0}
    assert first["marks"] == 0 and min(second["marks"], third["marks"]) >= 1
    assert (first["failed"], second["failed"], third["failed"]) == ("UserError", "OtherRankError", "OtherRankError")
    for one in (first, second, third):
        assert one["highest"] == [2, 0]
        assert one["summed"] == [3, 1.5]
        assert one["added"] == [[[3.0] * 3] * 2, [3.0, 3.0], 3.0]
        assert one["gathered"] == [[0, 10], [1, 11], [2, 12]]
        assert one["same"] == first["same"]


def test_batch_statistics_are_those_of_all(tmp_path: Path) -> None:
    for rank in launch(2, "norm", tmp_path):
        assert len(rank) == 6
        assert max(rank.values()) < 2e-5, rank


def check_curve(rows: Rows, expected: Rows, rel: float = 1e-4) -> None:
    assert len(rows) == len(expected) == 24
    for mine, theirs in zip(rows, expected, strict=True):
        assert mine.keys() == theirs.keys()
        if "split" in mine:
            assert mine["metrics"]["nll"] == pytest.approx(theirs["metrics"]["nll"], rel=10 * rel)
        else:
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=rel)
            assert mine["lr"] == theirs["lr"]


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_loss_curve_does_not_depend_on_their_number(alone: Rows, tmp_path: Path, world: int) -> None:
    """Dropout is on (keyed by position), and so are cutmix, clipping and the average."""
    check_curve(launch(world, "train", tmp_path)[0]["rows"], alone)


def test_a_signal_to_one_stops_all_and_another_number_of_them_goes_on(alone: Rows, tmp_path: Path) -> None:
    launch(2, "train", tmp_path, stop=7)
    assert RunDir(tmp_path / "run").load_checkpoint()[0] == 7
    check_curve(launch(1, "train", tmp_path)[0]["rows"], alone)


def test_muon_on_spread_weights(tmp_path: Path) -> None:
    """A matrix of which each process has rows is made orthogonal as a whole."""
    options: dict[str, Any] = {"model": "small_resnet_28px", "lr": 0.01, "augment": {}, "optimizer": "muon"}
    alone = launch(1, "train", tmp_path / "alone", **options)[0]["rows"]
    check_curve(launch(2, "train", tmp_path / "spread", shard=True, **options)[0]["rows"], alone)


@pytest.mark.parametrize("ema", [0.1, pytest.param(0.0, marks=pytest.mark.slow)])
def test_sharded_weights_train_as_whole_ones_do(alone: Rows, tmp_path: Path, ema: float) -> None:
    """And what they leave loads on one process, and the other way round."""
    launch(2, "train", tmp_path / "spread", shard=True, stop=9, ema=ema)
    launch(1, "train", tmp_path / "whole", stop=9, ema=ema)
    spread, whole = (RunDir(tmp_path / name / "run").load_checkpoint() for name in ("spread", "whole"))
    assert spread[0] == whole[0] == 9
    assert spread[1].keys() == whole[1].keys()
    assert all(len(spread[1][name]) == len(whole[1][name]) for name in whole[1] if name.endswith(".safetensors"))
    on_one = launch(1, "train", tmp_path / "spread", ema=ema)[0]["rows"]
    on_two = launch(2, "train", tmp_path / "whole", shard=True, ema=ema)[0]["rows"]
    check_curve(on_one, on_two)
    if ema:
        check_curve(on_one, alone)
    best = [(tmp_path / name / "run" / "best.safetensors").stat().st_size for name in ("spread", "whole")]
    assert abs(best[0] - best[1]) < 64, "one whole model file, but for the digits of its figures"


def test_gathered_figures_are_those_of_one(tmp_path: Path) -> None:
    """Nine images over four ranks: the padding of the last one counts for nothing."""
    for rank in launch(4, "shared", tmp_path):
        assert rank["shared"].keys() == rank["alone"].keys()
        for name, value in rank["alone"].items():
            assert rank["shared"][name] == pytest.approx(value, abs=1e-6)


def test_a_repeated_run_has_the_same_bits_and_only_the_first_writes(tmp_path: Path) -> None:
    outcomes = []
    for name in ("one", "other"):
        launch(2, "train", tmp_path / name, micro_batch=2)
        outcomes.append(Outcome.of(RunDir(tmp_path / name / "run")))
    assert outcomes[0].differs(outcomes[1]) == []
    assert len(list((tmp_path / "one" / "run" / "tensorboard").iterdir())) == 1


def test_a_number_that_is_none_is_found_by_all(tmp_path: Path) -> None:
    """Position 14 is the second rank's, of step 1: the step is left out by both, and told once."""
    first, second = launch(2, "train", tmp_path, poison=[14], on_nan="skip", augment={"flip": 0.5})
    assert first == second
    (event,) = first["events"]
    assert (event["event"], event["step"], event["what"]) == ("skip", 1, "loss")
    assert len(event["images"]) == 1
    assert all(np.isfinite(row["loss"]) for row in first["rows"] if "loss" in row)
    with np.load(tmp_path / "run" / "not-finite" / "step-000000001.npz") as kept:
        assert kept["positions"].tolist() == list(range(8, 16))


def test_one_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    first, _ = launch(2, "hang", tmp_path, seconds=2)
    assert "another process of this run has died or hangs" in first["said"]
    assert 1 < first["seconds"] < 20


@pytest.mark.parametrize(("batch", "world", "nearest"), [(6, 2, 8), (1, 2, 4), (10, 4, 8), (64, 3, 66)])
def test_a_batch_that_cannot_be_shared_is_refused(batch: int, world: int, nearest: int) -> None:
    check_batch(batch, 1)
    check_batch(nearest, world)
    with pytest.raises(UserError, match=f"multiple of {2 * world} for {world} processes, got {batch}") as told:
        check_batch(batch, world)
    assert told.value.fix == f"--batch {nearest}"


@pytest.mark.parametrize(
    ("precision", "shard", "rel"), [("fp32", False, 1e-4), ("fp32", True, 1e-4), pytest.param("bf16", False, 0.02, marks=pytest.mark.slow)]
)
def test_edits_and_requests_are_those_of_all(tmp_path: Path, precision: str, shard: bool, rel: float) -> None:
    """Planned edits, some that are asked for, one taken back, and settings: the same curve by one process and by two, whose weights may be
    spread; resumed, the same bits."""
    edits = ["at step 6: widen features.0.0 1.5", "at step 8: early-exit features.1"]
    options: dict[str, Any] = {"edits": edits, "lr": 0.01, "model": "small_resnet_28px", "augment": {}, "precision": precision}
    found = {}
    for name, world in (("alone", 1), ("two", 2), ("again", 2)):
        run = RunDir(tmp_path / name / "run")
        run.path.mkdir(parents=True)
        requests.ask(run, {"edits": ["deepen features.2 +1"]})
        requests.ask(run, {"settings": {"weight_decay": 0.01, "augment.flip": 0.5}})
        requests.ask(run, {"edits": ["widen features.1 1.5"]})
        requests.ask(run, {"undo": True})
        options["shard"] = shard and world == 2
        if name == "again":
            launch(world, "train", tmp_path / name, stop=9, **options)
        ranks = launch(world, "train", tmp_path / name, **options)
        assert all(rank["rows"] == ranks[0]["rows"] for rank in ranks)
        assert [event["event"] for event in run.events()] == ["edit", "set", "edit", "undo", "edit", "edit"]
        (learned, judged) = (next(row for row in ranks[0]["rows"][::-1] if key in row) for key in ("loss", "metrics"))
        assert {"last", "exit_1"} <= set(learned) and "exit_threshold" in judged["metrics"]
        found[name] = ranks[0]["rows"]
    check_curve(found["two"], found["alone"], rel)
    again, whole = (Outcome.of(RunDir(tmp_path / name / "run")) for name in ("again", "two"))
    assert again.differs(whole) == ["events"]  # requests have names of their own
    assert [event | {"request": ""} for event in again.events] == [event | {"request": ""} for event in whole.events]


@pytest.mark.parametrize("world", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_what_is_spread_is_put_together_where_all_have_room(tmp_path: Path, world: int) -> None:
    for found in launch(world, "whole", tmp_path):
        assert len(found["same"]) == 11 and all(found["same"]) and len(found["parts"]) == 8 and all(found["parts"])
        assert found["said"] == f"--shard: process {world - 1} has not enough memory for whole weights, of which each has a part"


FAULTS = {"looking": "refused", "checking": "refused", "gathering": "withdrawn", "building": "withdrawn", "moments": "withdrawn"}


@pytest.mark.parametrize("shard", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_one_of_them_has_no_memory_for_none_of_them_changes(tmp_path: Path, shard: bool) -> None:
    """At each place of an edit where one may fail and the others would wait: all roll back, and the run goes on as one that never tried."""
    faults = [one for one in FAULTS if shard or one not in ("looking", "gathering")]
    options: dict[str, Any] = {"model": "small_resnet_28px", "lr": 0.01, "augment": {}, "shard": shard, "ema": 0.1}
    last = f"at step {len(faults) + 3}: deepen features.2 +1"
    edits = [f"at step {2 + number}: widen features.0.0 1.5" for number in range(len(faults))]
    numbers = {str(number): place for number, place in enumerate(faults)}
    first, second = launch(2, "train", tmp_path / "short", edits=[*edits, last], faults=numbers, **options)
    assert first == second
    found = [(event["event"], event["number"]) for event in first["events"]]
    parts = [["refused"] if FAULTS[one] == "refused" else ["edit", "withdrawn"] for one in faults]
    assert found == [(event, number) for number, part in enumerate([*parts, ["edit"]]) for event in part]
    assert all(
        "process 1" in event["why"] and "not enough memory" in event["why"] for event in first["events"] if event["event"] == "refused"
    )
    assert launch(2, "train", tmp_path / "plain", edits=[last], **options)[0]["rows"] == first["rows"]
    outcomes = [Outcome.of(RunDir(tmp_path / name / "run")) for name in ("short", "plain")]
    assert [name for name in outcomes[0].differs(outcomes[1]) if name.endswith(".safetensors")] == []
