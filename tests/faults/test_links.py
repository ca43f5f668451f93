"""Links in data sets and in run folders: round ones, ones that lead out, ones that are swapped while a run trains."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import guard
from faults.commands import TINY, contents, make_data, paused, refused, run
from saccade.core.rundir import RunDir
from saccade.data.formats import folder
from saccade.data.tree import FolderTree
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

QUICK = ("no_report", {})
TRAIN = ("train", "data", *TINY, "--epochs", "4", "--out", "r")
RESUME = ("train", "--resume", "--out", "r")
STEP = ("saccade.training.loop:Trainer", "_step")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, and r/, a run that was stopped in its middle."""
    place = tmp_path_factory.mktemp("stopped")
    make_data(place / "data")
    with guard.GUARD.allow("processes"):
        child, go = paused(place, *TRAIN, at=(*STEP, 5), hooks=[QUICK])
        child.send(signal.SIGTERM)
        go.touch()
        assert child.wait() == 143, child.errors
    return place


@pytest.fixture
def here(stopped: Path, tmp_path: Path) -> Path:
    """An own copy of that run (whose data stay where they are), and a folder of somebody else's."""
    shutil.copytree(stopped / "r", tmp_path / "r")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    return tmp_path


# In data sets


def names(root: Path) -> list[str]:
    return [item.path for item in folder.read(FolderTree(root), "classify").items]


def test_round_links_end_and_show_each_folder_once_a_class(tmp_path: Path) -> None:
    """To itself, to where it stands, to one another, to the whole set; the same whatever order the disk gives."""
    data = make_data(tmp_path / "data", count=1)
    (data / "blue" / "self").symlink_to("self")
    (data / "blue" / "self.png").symlink_to("self.png")
    (data / "blue" / "here").symlink_to(".")
    (data / "blue" / "set").symlink_to("..")
    (data / "blue" / "all").symlink_to("/")
    (data / "blue" / "x").symlink_to("../green")
    (data / "blue" / "y").symlink_to("../green")
    (data / "green" / "z").symlink_to("../blue")
    (data / "self").symlink_to("self")
    (data / "set").symlink_to(".")
    assert names(data) == ["blue/0.png", "blue/self.png", "blue/x/0.png", "green/0.png", "green/z/0.png", "green/z/self.png", "red/0.png"]


def test_a_web_of_links_takes_no_time(tmp_path: Path) -> None:
    """Twelve folders, each with a link to every other: twelve factorial ways through them."""
    for one in range(12):
        (tmp_path / f"{one:02}").mkdir()
        (tmp_path / f"{one:02}" / f"{one:02}.png").write_bytes(b"x")
        for other in range(12):
            (tmp_path / f"{one:02}" / f"to {other:02}").symlink_to(f"../{other:02}")
    assert len(names(tmp_path)) == 12 * 12


def test_a_loop_is_a_bad_file_and_no_more(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    (data / "red" / "round.png").symlink_to("round.png")
    (data / "red" / "round").symlink_to("round")
    before = contents(data)
    refused(*run(tmp_path, *TRAIN), "1 image cannot be read", "red/round.png", "symbolic links")
    code, child = run(tmp_path, *TRAIN, "--skip-bad", hooks=[QUICK])
    assert code == 0, child.errors
    assert contents(data) == before


@pytest.mark.parametrize("what", ["file", "folder"])
def test_images_from_outside_are_told(tmp_path: Path, what: str) -> None:
    """A set from elsewhere may hold links to private pictures, which a report would show. Wanted: refused, or counted in one line."""
    data = make_data(tmp_path / "data")
    (tmp_path / "private").mkdir()
    Image.fromarray(np.full((18, 18, 3), 9, np.uint8)).save(tmp_path / "private" / "me.png")
    link, target = ("me.png", "private/me.png") if what == "file" else ("more", "private")
    (data / "red" / link).symlink_to(tmp_path / target)
    code, child = run(tmp_path, *TRAIN, hooks=[QUICK])
    assert "outside" in child.errors, "not silently"
    assert code == 2 or RunDir(tmp_path / "r").read_run()["data"]["outside"] == 1


def test_a_farm_of_links_trains_as_its_files_do(tmp_path: Path) -> None:
    """Sets are often made so: each image a link into a store."""
    data = make_data(tmp_path / "store" / "data")  # models name the set that they learned from
    for path in sorted(data.rglob("*.png")):
        link = tmp_path / "data" / path.relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert run(tmp_path, "train", "store/data", *TRAIN[2:-1], "whole", hooks=[QUICK])[0] == 0
    code, child = run(tmp_path, *TRAIN, hooks=[QUICK])
    assert code == 0, child.errors
    assert Outcome.of(RunDir(tmp_path / "r")).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []


def test_a_link_swapped_while_a_run_decodes_ends_it(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", kind="bmp")
    os.replace(data / "green" / "3.bmp", tmp_path / "one.bmp")
    (data / "green" / "3.bmp").symlink_to(tmp_path / "one.bmp")
    child, go = paused(tmp_path, *TRAIN, at=(*STEP, 2), hooks=[QUICK, ("keep_no_pixels", {})])
    shutil.copy(data / "red" / "1.bmp", tmp_path / "two.bmp")  # as many bytes
    (tmp_path / "new").symlink_to(tmp_path / "two.bmp")
    os.replace(tmp_path / "new", data / "green" / "3.bmp")
    go.touch()
    refused(child.wait(), child, "green/3.bmp", "has changed since")


def test_predict_follows_no_link_to_a_folder(here: Path, stopped: Path) -> None:
    make_data(here / "in", count=1)
    (here / "in" / "out").symlink_to(stopped / "data")
    (here / "in" / "round").symlink_to(".")
    code, child = run(here, "predict", "r", "in")
    assert code == 0, child.errors
    assert [line.split(": ")[0] for line in child.out.splitlines()] == [f"in/{name}/0.png" for name in ("blue", "green", "red")]


# In run folders


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors", "run.json", "report.html"])
def test_a_link_in_the_place_of_a_file_is_replaced(here: Path, name: str) -> None:
    target = here / "precious" / name
    if (here / "r" / name).exists():
        os.replace(here / "r" / name, target)
    else:
        target.write_text("mine")
    before = contents(here / "precious")
    (here / "r" / name).symlink_to(target)
    code, child = run(here, *RESUME)
    assert code == 0, child.errors
    assert contents(here / "precious") == before
    assert not (here / "r" / name).is_symlink() or name == "best.safetensors", "which did not get better, so was not written"


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl", ".lock"])
def test_a_link_that_would_be_written_through_is_refused(here: Path, name: str) -> None:
    target = here / "precious" / "thesis.txt"
    if name == "metrics.jsonl":
        target.write_bytes((here / "r" / name).read_bytes())
    elif name == "events.jsonl":
        target.write_text('{"event": "coup"}\n')
    (here / "r" / name).unlink(missing_ok=True)
    (here / "r" / name).symlink_to(target)
    before = contents(here / "precious")
    code, child = run(here, *RESUME, hooks=[QUICK])
    if name == "events.jsonl":  # read only, since nothing happens in this run
        assert code == 0, child.errors
    else:
        refused(code, child, f"r/{name}" if name == "metrics.jsonl" else "lock")
    assert contents(here / "precious") == before


def test_a_checkpoint_that_is_a_link_is_not_removed_through_it(here: Path) -> None:
    step = next((here / "r" / "checkpoints").glob("step-*"))
    shutil.move(step, here / "precious" / "step")
    step.symlink_to(here / "precious" / "step")
    (here / "r" / "checkpoints" / "step-000000001").symlink_to(here / "precious")
    before = contents(here / "precious")
    code, child = run(here, *RESUME, hooks=[QUICK, ("checkpoint_each_step", {})])
    assert code in (0, 2) and "Traceback" not in child.errors, child.errors
    assert contents(here / "precious") == before


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "predictions"])
def test_a_folder_of_the_run_that_leads_elsewhere_is_refused(here: Path, name: str) -> None:
    if (here / "r" / name).exists():
        shutil.copytree(here / "r" / name, here / "precious", dirs_exist_ok=True)
        shutil.rmtree(here / "r" / name)
    (here / "r" / name).symlink_to(here / "precious")
    before = contents(here / "precious")
    code, child = run(here, *RESUME)
    assert contents(here / "precious") == before, "nothing is written or removed through a link"
    refused(code, child, name)


@pytest.mark.parametrize("argv", [RESUME, ("train", "DATA", *TINY, "--epochs", "1")], ids=["run", "runs"])
def test_a_folder_that_the_user_names_by_a_link(here: Path, stopped: Path, argv: tuple[str, ...]) -> None:
    """A link to another disk, as `runs` or as the run itself, is the user's own choice: it works, or the line says what is wrong."""
    link = "r" if argv is RESUME else "runs"
    os.replace(here / "r", here / "disk")
    (here / link).symlink_to("disk")
    before = contents(here / "disk")
    code, child = run(here, *(str(stopped / "data") if word == "DATA" else word for word in argv), hooks=[QUICK])
    if code == 0:
        assert (here / link).is_symlink() and contents(here / "disk") != before
    else:
        refused(code, child, "link")
        assert contents(here / "disk") == before


def test_a_link_to_nothing_is_no_free_place(tmp_path: Path) -> None:
    """--out that dangles: refused, or made at the link's end, but no half of both."""
    make_data(tmp_path / "data")
    (tmp_path / "r").symlink_to("nowhere")
    code, child = run(tmp_path, *TRAIN, hooks=[QUICK])
    refused(code, child, "r: ")
    assert not (tmp_path / "nowhere").exists()


def test_predictions_do_not_follow_a_link(here: Path, stopped: Path) -> None:
    (here / "o").mkdir()
    (here / "o" / "predictions.csv").symlink_to(here / "precious" / "thesis.txt")
    before = contents(here / "precious")
    code, child = run(here, "predict", "r", str(stopped / "data" / "red"), "--format", "csv", "--out", "o")
    assert code == 0, child.errors
    assert contents(here / "precious") == before
    assert not (here / "o" / "predictions.csv").is_symlink()
