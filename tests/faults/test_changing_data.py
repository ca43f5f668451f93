"""Images that are broken, and images and kept pixels that change while a run trains: it names them, or goes on with the same bits."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import guard
from faults.commands import TINY, contents, make_data, paused, refused, run
from saccade.core.rundir import RunDir
from small_jobs import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.long]

QUICK = ("no_report", {})
DECODING = ("keep_no_pixels", {})
OFTEN = ("checkpoint_each_step", {})
VICTIM = "green/3.bmp"
STEP = ("saccade.training.loop:Trainer", "_step", 2)


# Broken from the start


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels, all there, in two megabytes less than nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(3751 * 30_000), 9)) + chunk(b"IEND", b"")


def break_some(data: Path) -> dict[str, str]:
    """Put one bad file of each kind into the class folders; path -> a word of its reason."""
    good = (data / "red" / "0.png").read_bytes()
    (data / "red" / "cut.png").write_bytes(good[: len(good) // 2])
    (data / "green" / "nothing.png").write_bytes(b"")
    (data / "green" / "words.jpg").write_text("not a picture\n" * 20)
    (data / "blue" / "bomb.png").write_bytes(bomb())
    (data / "blue" / "gone.png").symlink_to("nowhere.png")
    (data / "blue" / "round.png").symlink_to("round.png")
    os.mkfifo(data / "red" / "pipe.png")
    (data / "red" / "page.png").write_bytes(good.replace(b"IDAT", b"IDAX"))
    bad = {
        "red/cut.png": "cut short",
        "green/nothing.png": "0 bytes",
        "green/words.jpg": "something else",
        "blue/bomb.png": "900,000,000",
        "blue/gone.png": "no such file",
        "blue/round.png": "symbolic links",
        "red/pipe.png": "pipe",
        "red/page.png": "",
    }
    if os.geteuid() != 0:  # root reads everything
        (data / "red" / "secret.png").write_bytes(good)
        (data / "red" / "secret.png").chmod(0)
        bad["red/secret.png"] = "ermission"
    (data / "red" / "folder.png").mkdir()
    shutil.copy(data / "red" / "0.png", data / "red" / "wrong suffix.jpg")  # what it holds counts
    return bad


@pytest.mark.parametrize("more", [(), (DECODING,)], ids=["kept", "decoding"])
def test_every_bad_file_is_named_and_none_is_touched(tmp_path: Path, more: tuple[Any, ...]) -> None:
    data = make_data(tmp_path / "data")
    bad = break_some(data)
    before = contents(data)
    line = refused(*run(tmp_path, "train", "data", *TINY, "--epochs", "1", "--out", "r", hooks=[QUICK, *more]), "--skip-bad")
    assert f"{len(bad)} images cannot be read" in line
    for path, reason in bad.items():
        assert path in line and reason in line, path
    assert not (tmp_path / "r").exists()
    hooks = [] if not more else [QUICK, *more]
    code, child = run(tmp_path, "train", "data", *TINY, "--epochs", "1", "--out", "r", "--skip-bad", hooks=hooks)
    assert code == 0, child.errors
    assert f"left out {len(bad)} of {24 + 1 + len(bad)} images" in child.errors
    record = json.loads((tmp_path / "r" / "run.json").read_text())["data"]
    assert {row["path"] for row in record["bad"]} == bad.keys()
    assert sum(sum(counts) for counts in record["counts"].values()) == 25
    if not more:
        page = (tmp_path / "r" / "report.html").read_text()
        assert all(f"{path} was left out" in page for path in bad)
    assert run(tmp_path, "eval", "r", hooks=[QUICK, *more])[0] == 0
    code, child = run(tmp_path, "predict", "r", "data", "--json", hooks=more)
    answer = json.loads(child.out)
    assert (code, len(answer["results"])) == (0, 25)
    assert {row["source"].removeprefix("data/") for row in answer["failed"]} == bad.keys()
    assert contents(data) == before, "not one byte of the user's folder"


# Changed while it trains


def vanish(path: Path) -> None:
    path.unlink()


def repaint(path: Path) -> None:
    """Other pixels in as many bytes."""
    size = path.stat().st_size
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert path.stat().st_size == size


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    Image.new("RGB", (40, 25), "white").save(path)


def swap(path: Path) -> None:
    """A new file in its place, as editors and synchronising programs do it."""
    new = path.with_name("new")
    Image.new("RGB", (19, 18)).save(new, "BMP")
    os.replace(new, path)


def point_elsewhere(path: Path) -> None:
    """What was a file is now a link to another image."""
    os.replace(path, path.with_name("before"))
    path.symlink_to("4.bmp")


HARMS: dict[str, Callable[[Path], None]] = {each.__name__: each for each in (vanish, repaint, cut, grow, swap, point_elsewhere)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The data, never changed, and what an undisturbed run over them leaves."""
    place = tmp_path_factory.mktemp("whole")
    make_data(place / "data", kind="bmp")
    with guard.GUARD.allow("processes"):
        code, child = run(place, "train", "data", *TINY, "--epochs", "4", "--out", "r", hooks=[QUICK])
    assert code == 0, child.errors
    return place / "data", Outcome.of(RunDir(place / "r"))


@pytest.fixture
def data(whole: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """An own copy, of the same age."""
    return Path(shutil.copytree(whole[0], tmp_path / "data"))


def state(place: Path) -> str:
    return str(json.loads((place / "r" / "run.json").read_text())["state"])


@pytest.mark.parametrize(("harm", "workers"), [(harm, "02"[number % 2]) for number, harm in enumerate(HARMS)])
def test_an_image_that_changes_ends_a_run_that_decodes(whole: tuple[Path, Outcome], data: Path, harm: str, workers: str) -> None:
    place = data.parent
    train = ["train", "data", *TINY, "--epochs", "4", "--workers", workers, "--out", "r"]
    child, go = paused(place, *train, at=STEP, hooks=[QUICK, DECODING, OFTEN])
    shutil.copy2(data / VICTIM, place / "copy")
    HARMS[harm](data / VICTIM)
    go.touch()
    line = refused(child.wait(), child, VICTIM, "since this command")
    assert ("no such file" in line) == (harm == "vanish")
    assert state(place) == "failed"
    step = RunDir(place / "r").load_checkpoint()[0]
    assert step >= 2, "what was saved is whole"
    if harm in ("repaint", "point_elsewhere"):
        return  # as many bytes: see below
    refused(*run(place, "train", "--resume", "--out", "r"), "the images are no longer those that the run was trained on")
    (data / VICTIM).unlink(missing_ok=True)
    shutil.copy(place / "copy", data / VICTIM)  # younger than it was: the content counts
    code, child = run(place, "train", "--resume", "--out", "r", hooks=[QUICK, DECODING])
    assert code == 0, child.errors
    assert f"going on from step {step}" in child.errors
    assert Outcome.of(RunDir(place / "r")).differs(whole[1]) == []


def test_a_resumed_run_refuses_other_pixels_in_as_many_bytes(data: Path) -> None:
    place = data.parent
    child, go = paused(place, "train", "data", *TINY, "--epochs", "4", "--out", "r", at=STEP, hooks=[QUICK, DECODING, OFTEN])
    repaint(data / VICTIM)
    go.touch()
    refused(child.wait(), child, VICTIM)
    refused(*run(place, "train", "--resume", "--out", "r", hooks=[QUICK]), "the images are no longer those")


def test_what_was_read_and_kept_is_what_is_trained_on(whole: tuple[Path, Outcome], data: Path) -> None:
    """With kept pixels no image is opened again before the report: whatever becomes of the files, the run is the same."""
    place = data.parent
    child, go = paused(place, "train", "data", *TINY, "--epochs", "4", "--out", "r", at=STEP)
    for number, harm in enumerate(HARMS.values()):
        harm(data / "green" / f"{number}.bmp")
    go.touch()
    assert child.wait() == 0, child.errors
    assert Outcome.of(RunDir(place / "r")).differs(whole[1]) == []
    refused(*run(place, "train", "--resume", "--out", "r"), "the images are no longer those")


@pytest.mark.parametrize("more", [(), (DECODING,)], ids=["kept", "decoding"])
def test_an_image_that_changes_before_it_is_read_is_refused(data: Path, more: tuple[Any, ...]) -> None:
    """Between the listing of the folder, which makes the fingerprint, and the reading of this file."""
    place = data.parent
    at = ("saccade.api.training", "check_trainable", 0)
    child, go = paused(place, "train", "data", *TINY, "--epochs", "4", "--out", "r", at=at, hooks=[QUICK, *more])
    repaint(data / VICTIM)
    vanish(data / "red" / "1.bmp")
    go.touch()
    line = refused(child.wait(), child, VICTIM, "has changed since", "red/1.bmp", "2 images cannot be read")
    assert "gone since" in line
    assert not (place / "r").exists()
    assert len(list((place / "cache").rglob("*.u8"))) <= 1, "nothing is kept of the split that they are in"


# The kept pixels


def flip(data: Path, shapes: Path) -> None:
    """One bit of each image."""
    raw = np.fromfile(data, np.uint8)
    raw[::50] ^= 4
    data.write_bytes(raw.tobytes())


def flip_in_place(data: Path, shapes: Path) -> None:
    """The same in the file that a process has open."""
    with open(data, "r+b") as file:
        raw = bytearray(file.read())
        raw[::50] = bytes(value ^ 4 for value in raw[::50])
        file.seek(0)
        file.write(raw)


def garble(data: Path, shapes: Path) -> None:
    shapes.write_bytes(shapes.read_bytes()[:80] + b"((((" + shapes.read_bytes()[84:])


def claim_much(data: Path, shapes: Path) -> None:
    """A table of a terabyte, as its header says."""
    with open(shapes, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (1 << 35, 4)})


def negate(data: Path, shapes: Path) -> None:
    np.save(shapes, -np.load(shapes))


def zip_it(data: Path, shapes: Path) -> None:
    np.savez(shapes.with_suffix(".zip"), a=np.zeros(3))
    os.replace(shapes.with_suffix(".zip.npz"), shapes)


def drop(data: Path, shapes: Path) -> None:
    data.unlink()
    shapes.unlink()


def truncate(data: Path, shapes: Path) -> None:
    os.truncate(data, data.stat().st_size // 3)


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    each.__name__: each for each in (flip, flip_in_place, garble, claim_much, negate, zip_it, drop, truncate)
}


def damage(cache: Path, harm: str) -> None:
    entries = sorted(cache.rglob("*.u8"))
    assert len(entries) == 2, "training and validation"
    for entry in entries:
        DAMAGES[harm](entry, entry.with_suffix(".npy"))


def test_damaged_pixels_are_found_and_decoded_again(whole: tuple[Path, Outcome], data: Path) -> None:
    """Of every damage: the run is the same, and what it leaves is whole, or is not there and made anew by the next."""
    place = data.parent
    assert run(place, "train", "data", *TINY, "--epochs", "4", "--out", "first", hooks=[QUICK])[0] == 0
    pristine = contents(place / "cache")
    shutil.copytree(place / "cache", place / "pristine")
    for harm in DAMAGES:
        shutil.rmtree(place / "cache")
        shutil.copytree(place / "pristine", place / "cache")
        damage(place / "cache", harm)
        code, child = run(place, "train", "data", *TINY, "--epochs", "4", "--out", harm, hooks=[QUICK])
        assert code == 0, child.errors
        assert Outcome.of(RunDir(place / harm)).differs(whole[1]) == [], harm
        left = contents(place / "cache")
        if harm.startswith("flip"):
            assert not [name for name in left if name.endswith(".npy")], harm
        else:
            assert left == pristine, harm


@pytest.mark.parametrize("harm", ["truncate", "drop", "garble", "flip_in_place"])
def test_pixels_damaged_in_mid_run_change_nothing(whole: tuple[Path, Outcome], data: Path, harm: str) -> None:
    """A file cut short under a memory map would end the process by SIGBUS."""
    place = data.parent
    child, go = paused(place, "train", "data", *TINY, "--epochs", "4", "--out", "r", at=STEP, hooks=[QUICK])
    damage(place / "cache", harm)
    go.touch()
    assert child.wait() == 0, child.errors
    assert Outcome.of(RunDir(place / "r")).differs(whole[1]) == []
