"""`edit` and `set` on a run that another process trains: answered between two steps, in one line, whatever becomes of either."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from faults.commands import TINY, make_data, paused, refused, run, start, wait_for
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

QUICK = ("no_report", {})
STEP = ("saccade.training.loop:Trainer", "_step")
TRAIN = ("train", "data", *TINY, "--epochs", "7", "--out", "run")  # 21 steps


def test_a_run_is_edited_set_paused_and_stopped(tmp_path: Path) -> None:
    """And resumes to the same bits as one that nobody stopped."""
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    asked = start(tmp_path, "edit", "run", "widen features.0.0 1.5", "--json")
    place = RunDir(tmp_path / "run")
    wait_for(lambda: any(place.requests.glob("*.json")))
    go.touch()
    assert asked.wait() == 0, asked.errors
    row = json.loads(asked.out)
    assert row["model"] is None and row["step"] >= 5 and row["edits"][0]["promise"] == "exact"
    code, told = run(tmp_path, "edit", "run", "prune features.1.0.conv1 0.5", "--dry-run")
    if code == 0:  # the run may have ended by now
        assert "changes the function" in told.out and "nothing was written" in told.out
    child.wait()
    code, again = run(tmp_path, "edit", "run", "widen features.0.0 1.5")
    refused(code, again, "the run has ended", "--weights")
    code, again = run(tmp_path, "set", "run", "lr=1e-4")
    refused(code, again, "the run has ended")
    assert [event["event"] for event in place.events()] == ["edit"]


def test_two_that_ask_at_once(tmp_path: Path) -> None:
    """One after the other: what both want is made for one of them, and refused to the other."""
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    place = RunDir(tmp_path / "run")
    asked = [start(tmp_path, "edit", "run", "early-exit features.1") for _ in range(2)]
    wait_for(lambda: len(list(place.requests.glob("*.json"))) == 2)
    go.touch()
    codes = [one.wait() for one in asked]
    assert sorted(codes) == [0, 2], [one.errors for one in asked]
    assert "features.1: it has an exit" in asked[codes.index(2)].last
    assert child.wait() == 0
    assert [event["text"] for event in place.events()] == ["early-exit features.1"]


def test_a_stopped_run_takes_settings_up_when_it_is_resumed(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    stop = start(tmp_path, "set", "run", "state=stopped", "snapshot=now")
    place = RunDir(tmp_path / "run")
    wait_for(lambda: any(place.requests.glob("*.json")))
    go.touch()
    assert (stop.wait(), child.wait()) == (0, 143)
    assert child.last.startswith("interrupted: stopped at step"), child.errors
    at = place.load_checkpoint()[0]
    for words, said in (
        (["state=paused"], "does not train now"),
        (["lr=-1"], "lr"),
        (["epochs=1"], f"epochs must be more than the {at / 3:.2f} that are done, got 1"),
        (["epochs=1e18"], "epochs must be fewer"),
        (["augment.paste=0.5"], "augment.paste"),
        (["seed=4"], "unknown setting"),
        (["lr"], "key=value"),
    ):
        refused(*run(tmp_path, "set", "run", *words), said)
    refused(*run(tmp_path, "edit", "run", "widen features.0.0 1.5"), "does not train now", "--resume")
    code, told = run(tmp_path, "set", "run", "lr=1e-5", "epochs=5")
    assert code == 0 and told.out == "run  lr=1e-5 epochs=5  when it is resumed\n", told.errors
    refused(*run(tmp_path, "set", "run", "lr=1", "--undo"), "settings, or --undo alone")
    assert run(tmp_path, "set", "run", "weight_decay=0.5")[0] == 0
    code, told = run(tmp_path, "set", "run", "--undo")
    assert code == 0 and told.out == "run  what was set last is taken back  when it is resumed\n", told.errors
    code, again = run(tmp_path, "train", "--resume", "--out", "run", hooks=[QUICK])
    assert code == 0, again.errors
    assert [(event["event"], event["step"], event.get("undoes")) for event in place.events()] == [
        ("set", at, None),
        ("set", at, None),
        ("set", at, 1),
    ]
    assert Outcome.of(place).loop["settings"]["weight_decay"] == place.read_run()["config"]["weight_decay"]
    assert Outcome.of(place).loop["step"] == 15
    assert max(row["lr"] for row in place.metrics() if "lr" in row and row["step"] > at) <= 1e-5


def test_who_asks_may_go_away(tmp_path: Path) -> None:
    """Its request goes with it."""
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    asked = start(tmp_path, "edit", "run", "widen features.0.0 1.5")
    place = RunDir(tmp_path / "run")
    wait_for(lambda: any(place.requests.glob("*.json")))
    asked.send(signal.SIGINT)
    assert asked.wait() == 130
    assert not any(place.requests.iterdir())
    go.touch()
    assert child.wait() == 0
    assert place.events() == []


def test_the_run_may_die(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    child, _ = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    asked = start(tmp_path, "set", "run", "lr=1e-4")
    place = RunDir(tmp_path / "run")
    wait_for(lambda: any(place.requests.glob("*.json")))
    child.send(signal.SIGKILL)
    child.wait()
    refused(asked.wait(), asked, "the run ended before it could answer")
    assert not any(place.requests.iterdir())


def test_a_run_of_another_machine(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 4), hooks=[QUICK])
    place = RunDir(tmp_path / "run")
    holder = place.path / ".holder.json"
    kept = holder.read_text()
    holder.write_text(json.dumps({"pid": 1, "host": f"not-{socket.gethostname()}"}))
    refused(*run(tmp_path, "edit", "run", "widen features.0.0 1.5"), "the run is on not-", "ask for it there")
    holder.write_text(kept)
    refused(*run(tmp_path, "edit", "nosuch", "widen features.0.0 1.5"), "nosuch")
    refused(*run(tmp_path, "set", "nosuch", "lr=1"), "is no run")
    go.touch()
    assert child.wait() == 0


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("at step 5 widen features.0.0 2", ["must be", "at step N: EDIT"]),
        ("at step 1.5: widen features.0.0 2", ["a step is a whole number"]),
        ("at step 5: widenn features.0.0 2", ["widen"]),
        ("at step 5: widen nosuch 2", ["no module 'nosuch'"]),
        ("at step 500: widen features.0.0 2", ["step 500 never comes", "21"]),
        ("when miou stalls 2: widen features.0.0 2", ["accuracy"]),
        ("when accuracy stalls 6: widen features.0.0 2", ["never come", "when accuracy stalls 5"]),
        ("at step 5: set-classes +owl", ["does not go with the data"]),
    ],
)
def test_a_planned_edit_that_cannot_be_is_refused_before_the_run(tmp_path: Path, edit: str, words: list[str]) -> None:
    make_data(tmp_path / "data")
    refused(*run(tmp_path, *TRAIN, "--edit", edit, hooks=[QUICK]), *words)
    assert not (tmp_path / "run").exists()
