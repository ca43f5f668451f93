"""Everything that can be wrong with a request: exit code 2, one line that says what and where, nothing written, nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.cli.main import main

Captured = pytest.CaptureFixture[str]
Snapshot = dict[str, tuple[int, str]]

FAST = ["--model", "small_resnet_8px", "--size", "16", "--batch", "8", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ (three classes) and run/ (one pass over them); never changed."""
    place = tmp_path_factory.mktemp("finished")
    generator = np.random.Generator(np.random.Philox(0))
    for shade, name in enumerate(("dark", "middle", "light")):
        (place / "data" / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 80, (17, 11 + number, 3)).astype(np.uint8) + np.uint8(85 * shade)
            Image.fromarray(pixels).save(place / "data" / name / f"{number}.png")
    assert main(["train", str(place / "data"), *FAST, "--out", str(place / "run"), "--quiet"]) == 0
    return place


@pytest.fixture
def here(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own copy of the finished folder, as the place to work in."""
    place = tmp_path / "here"
    shutil.copytree(finished, place)
    record = json.loads((place / "run" / "run.json").read_text())
    record["config"]["data"] = record["data"]["path"] = str(place / "data")
    (place / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(place)
    return place


def snapshot(folder: Path) -> Snapshot:
    """Every path below `folder` with its age and content."""
    return dict(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    for path in folder.rglob("*"):
        if path.name != ".lock":  # an empty file that whoever looks at a run in use may leave
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            yield str(path.relative_to(folder)), (path.stat().st_mtime_ns if path.is_file() else 0, content)


def refused(capsys: Captured, here: Path, *argv: str | Path, words: tuple[str, ...] = ()) -> dict[str, str]:
    """Run the command, plain and with --json: both must refuse in the same one line and leave every file as it was."""
    command = [str(word) for word in argv]
    before = snapshot(here)
    capsys.readouterr()
    assert main(command) == 2
    plain = capsys.readouterr()
    lines = plain.err.splitlines()
    assert plain.out == ""
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
    assert not any("Traceback" in line for line in lines)
    cut = command.index("--") if "--" in command else len(command)
    assert main([*command[:cut], "--json", "--quiet", *command[cut:]]) == 2
    told = capsys.readouterr()
    assert told.err.splitlines() == lines[-1:], "quiet, and the same line"
    assert told.out.count("\n") == 1
    answer = json.loads(told.out)
    assert set(answer) == {"error"} and answer["error"].keys() - {"findings"} == {"message", "where", "fix"}
    assert answer["error"]["message"] and answer["error"]["message"] in lines[-1]
    for word in words:
        assert word in lines[-1], lines[-1]
    assert snapshot(here) == before, "nothing is written, nothing is lost"
    error: dict[str, str] = answer["error"]
    return error


# Data


def huge_png() -> bytes:
    """A valid header of 60,000 x 60,000 pixels, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def spoil(folder: Path, data: bytes) -> None:
    (folder / "middle" / "spoiled.png").write_bytes(data)


def keep(folder: Path, *names: str) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path)


def to_text(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.rename(path.with_suffix(".txt"))


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no such folder": (shutil.rmtree, ("data", "no such folder")),
    "empty": (keep, ("data", "folder per class")),
    "no images": (to_text, ("data", "no images")),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), ("data", "must be a folder")),
    "one class": (lambda folder: keep(folder, "dark"), ("two classes", "dark")),
    "a class with one image": (lambda folder: [path.unlink() for path in sorted((folder / "dark").iterdir())[1:]], ("dark", "one image")),
    "one image in all": (lambda folder: [path.unlink() for path in sorted(folder.rglob("*.png"))[1:]], ("two classes",)),
    "only test": (lambda folder: folder.rename(folder.parent / "x") and shutil.move(folder.parent / "x", folder / "test"), ("train",)),
    "not an image": (lambda folder: spoil(folder, b"no image at all" * 9), ("middle/spoiled.png", "must be an image", "--skip-bad")),
    "zero bytes": (lambda folder: spoil(folder, b""), ("middle/spoiled.png", "0 bytes", "--skip-bad")),
    "truncated": (lambda folder: spoil(folder, (folder / "dark" / "0.png").read_bytes()[:100]), ("middle/spoiled.png", "cut short")),
    "huge": (lambda folder: spoil(folder, huge_png()), ("middle/spoiled.png", "3,600,000,000")),
    "a dangling link": (lambda folder: (folder / "middle" / "spoiled.png").symlink_to("nowhere"), ("middle/spoiled.png",)),
}


@pytest.mark.parametrize("fault", BAD_FOLDERS)
def test_bad_data(here: Path, capsys: Captured, fault: str) -> None:
    damage, words = BAD_FOLDERS[fault]
    damage(here / "data")
    refused(capsys, here, "train", "data", *FAST, "--out", "new", words=words)
    refused(capsys, here, "train", "data", "--epochs", "1", "--device", "cpu", words=words)
    assert not (here / "new").exists() and not (here / "runs").exists()


# Requests


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "resnet81"], ("resnet81", "did you mean", "resnet")),
        (["--model", "small_resnet_8"], ("small_resnet_8px",)),
        (["--model", ""], ("model",)),
        (["--set", "model=vitt_base"], ("vitt_base", "did you mean")),
        (["--task", "clasify"], ("clasify", "classify")),
        (["--device", "cuda:77"], ("cuda:77",)),
        (["--device", "cpu", "--precision", "fp16"], ("fp16", "bf16")),
        (["--config", "nowhere.json"], ("nowhere.json", "no such file")),
        (["--config", "data"], ("data", "must be a file")),
        (["--weights", "nowhere.safetensors"], ("nowhere.safetensors", "no such file")),
        (["--weights", "data"], ("data",)),
        (["--weights", "data/dark/0.png"], ("data/dark/0.png", "safetensors")),
        (["--epochs", "0"], ("epochs",)),
        (["--epochs", "-1"], ("epochs",)),
        (["--epochs", "nan"], ("epochs",)),
        (["--epochs", "inf"], ("epochs",)),
        (["--epochs", "many"], ("--epochs",)),
        (["--minutes", "0"], ("minutes",)),
        (["--minutes", "nan"], ("minutes",)),
        (["--size", "0"], ("size",)),
        (["--seed", "-1"], ("--seed",)),
        (["--seed", "99999999999999999999"], ("seed",)),
        (["--set", "lr=-1"], ("lr",)),
        (["--set", "lr=nan"], ("lr",)),
        (["--set", "lr=1e999"], ("lr",)),
        (["--set", "lr=fast"], ("lr", "fast")),
        (["--set", "batch=1.5"], ("batch",)),
        (["--set", "channels=2"], ("channels",)),
        (["--set", "optimizer=adam"], ("optimizer", "adamw")),
        (["--set", "lr=1e-3", "--set", "lr=2e-3"], ("--set: lr is given twice", "leave one lr=VALUE out")),
        (["--set", "augment.flip=2"], ("augment.flip",)),
        (["--set", "augment.flop=1"], ("augment.flip",)),
        (["--set", "lr"], ("key=value",)),
        (["--set", "lrr=1"], ("lrr", "did you mean lr")),
        (["--epoch", "1"], ("--epoch", "--epochs")),
        (["--set", "segmentation.dice=2"], ("segmentation.dice: is for segment", "must be 1.0 for classify, was 2.0", "leave it out")),
        (["--set", "generation.loss=hinge", "--task", "classify"], ("generation.loss: is for generate", 'was "hinge"')),
        (["--set", "objects.nms=soft", *FAST], ("objects.nms: is for detect, instances, panoptic",)),
        (["--model", "run/best.safetensors"], ("run/best.safetensors", "is that of a file of weights", "--weights")),
        (["--pretrained", "--model", "small_resnet_8px"], ("published weights",)),
        (["--resume"], ("nothing to resume",)),
    ],
)
def test_bad_options_of_train(here: Path, capsys: Captured, options: list[str], words: tuple[str, ...]) -> None:
    refused(capsys, here, "train", "data", "--out", "new", *options, words=words)
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("mine.json",)),
        ("[]", ("mine.json", "object")),
        ('{"epochs": 1, "epochs": 2}', ("mine.json", "epochs")),
        ('{"epoch": 1}', ("mine.json", "did you mean epochs")),
        ('{"config": {"lr": "fast"}}', ("mine.json", "lr")),
        ('{"augment": {"flop": 1}}', ("mine.json", "augment.flip")),
        ('{"augment": 1}', ("mine.json", "augment")),
        ('{"model": "resnet81"}', ("resnet81", "did you mean")),
        ('{"config": {"segmentation": {"multi": true, "dice": 1.0}}}', ("segmentation.multi: is for segment", "must be false", "was true")),
    ],
)
def test_bad_configurations(here: Path, capsys: Captured, text: str, words: tuple[str, ...]) -> None:
    (here / "mine.json").write_text(text)
    refused(capsys, here, "train", "data", "--config", "mine.json", "--out", "new", words=words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train"], ("DATA",)),
        (["train", "--resume"], ("--out",)),
        (["eval", "gone"], ("gone", "no such")),
        (["eval", "data"], ("data", "neither")),
        (["eval", "data/dark/0.png"], ("0.png", "safetensors")),
        (["eval", "run/best.safetensors"], ("DATA",)),
        (["eval", "run", "gone"], ("gone", "no such folder")),
        (["eval", "run", "data/dark"], ("data/dark", "folder per class")),
        (["eval", "run", "--split", "tset"], ("tset", "did you mean")),
        (["eval", "run", "--device", "tpu"], ("tpu",)),
        (["eval", "--predictions", "gone.jsonl", "data"], ("gone.jsonl",)),
        (["eval", "--predictions", "data/dark/0.png", "data"], ("0.png",)),
        (["predict", "gone", "data/dark/0.png"], ("gone",)),
        (["predict", "data", "data/dark/0.png"], ("data", "neither")),
        (["predict", "run"], ("INPUT",)),
        (["predict", "run", "gone.png"], ("gone.png", "no such file")),
        (["predict", "run", "gone*.png", "gone.jpg"], ("gone*.png", "1 more")),
        (["predict", "run", "run"], ("no images",)),
        (["predict", "run", "data/dark/0.png", "gone.png", "--strict", "--out", "o"], ("gone.png", "--strict")),
        (["predict", "run", "data/dark/0.png", "--max-pixels", "9", "--out", "o"], ("at most 9 pixels",)),
        (["predict", "run", "data/dark/0.png", "--format", "cvs"], ("--format", "csv")),
        (["predict", "run", "data/dark/0.png", "--out", "data/dark/1.png"], ("1.png",)),
        (["predict", "run", "https://example.org/a.png"], ("URL",)),
        (["explain", "run", "gone.png"], ("gone.png",)),
        (["explain", "run", "data/dark/0.png", "--class", "drak"], ("drak", "did you mean dark")),
        (["explain", "run", "data/dark/0.png", "--out", "data/dark/1.png"], ("1.png",)),
        (["embed", "run", "gone.png", "--out", "o.npz"], ("gone.png",)),
        (["embed", "run", "data/dark/0.png", "--out", "o.csv"], ("o.csv", ".npz")),
        (["embed", "run", "data/dark/0.png", "--out", "data/dark/1.png/o.npz"], ("1.png",)),
        (["embed", "run", "data/dark/0.png", "--out", "o.npz", "--layer", "heda"], ("heda", "did you mean head")),
        (["embed", "run", "data/dark/0.png", "--out", "o.npz", "--pretrained"], ("--pretrained", "network")),
        (["embed", "resnet81", "data/dark/0.png", "--out", "o.npz"], ("resnet81", "did you mean")),
        (["predict", "n" * 300, "data/dark/0.png"], ("File name too long",)),
        (["models", "resnet81"], ("resnet81", "did you mean")),
        (["models", "gone.safetensors"], ("gone.safetensors", "no such")),
        (["models", "gone.pth"], ("gone.pth", "no such")),
        (["models", "data/dark/0.png"], ("0.png", "safetensors")),
        (["models", "--task", "clasify"], ("clasify", "classify")),
        (["models", "--sort", "size"], ("size", "parameters")),
        (["adopt", "gone.pth", "--model", "lenet5", "--out", "o.safetensors"], ("gone.pth", "no such file")),
        (["adopt", "data/dark/0.png", "--model", "lenet5", "--out", "o.safetensors"], ("0.png",)),
        (["adopt", "run/best.safetensors", "--model", "lenet6", "--out", "o.safetensors"], ("lenet6", "did you mean lenet5")),
        (["adopt", "run/best.safetensors", "--model", "lenet5", "--out", "o.pt"], ("o.pt", "NAME.safetensors")),
        (["adopt", "run/best.safetensors", "--model", "lenet5"], ("--out",)),
        (["data", "make", "shapes", "--n", "3", "--out", "new"], ("n must be",)),
        (["data", "make", "shapes", "--out", "data"], ("data", "empty")),
        (["data", "make", "shapes", "--task", "detecct", "--out", "new"], ("detecct",)),
        (["data", "make", "shapes", "--size", "4", "--out", "new"], ("size",)),
        (["data", "make"], ("shapes",)),
        (["quickstart", "--task", "clasify"], ("clasify", "classify")),
        (["quickstart", "--out", "."], ("holds a quickstart already",)),
        (["quickstart", "--device", "cuda:77"], ("cuda:77",)),
        (["quickstart", "--device", "cpu", "--precision", "fp16"], ("fp16",)),
    ],
)
def test_bad_requests_of_every_verb(here: Path, capsys: Captured, argv: list[str], words: tuple[str, ...]) -> None:
    refused(capsys, here, *argv, words=words)


def test_unknown_classes_and_rows_in_predictions(here: Path, capsys: Captured) -> None:
    rows = [json.loads(line) for line in (here / "run" / "predictions" / "val.jsonl").read_text().splitlines()]
    for change, word in (
        ({"source": "x.png"}, "x.png"),
        ({"label": "blue", "scores": None}, "scores"),
        ({"scores": {"dark": 2}}, "from 0 to 1"),
    ):
        (here / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{**rows[0], **change}, *rows[1:]]))
        refused(capsys, here, "eval", "--predictions", "p.jsonl", "data", words=("p.jsonl", word))
    shutil.copytree(here / "data", here / "more")
    (here / "more" / "dark").rename(here / "more" / "pitch")
    refused(capsys, here, "eval", "run", "more", words=("pitch", "dark"))


# Places


def test_a_folder_with_something_in_it_is_not_overwritten(here: Path, capsys: Captured) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("mine")
    refused(capsys, here, "train", "data", *FAST, "--out", "mine", words=("mine", "not empty", "--resume"))
    refused(capsys, here, "train", "data", *FAST, "--out", "run", words=("run", "not empty"))
    refused(capsys, here, "train", "data", *FAST, "--out", "mine/thesis.txt", words=("thesis.txt",))
    refused(capsys, here, "train", "data", *FAST, "--out", "mine/thesis.txt/run", words=("thesis.txt",))


def test_no_write_permission(here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = here / "locked"
    locked.mkdir(mode=0o555)
    ask = os.access
    # Root may write anywhere, so the system's answer is imitated for this one folder.
    monkeypatch.setattr(os, "access", lambda path, mode, **how: not (str(path) == "locked" and mode & os.W_OK) and ask(path, mode, **how))
    refused(capsys, here, "train", "data", *FAST, "--out", "locked/new/run", words=("locked", "may not be written", "--out"))
    refused(capsys, here, "train", "data", *FAST, "--out", "locked", words=("locked", "may not be written"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_place_where_nobody_may_write(here: Path, capsys: Captured) -> None:
    refused(capsys, here, "train", "data", *FAST, "--out", "/proc/saccade/run", words=("/proc/saccade",))
    refused(capsys, here, "predict", "run", "data/dark/0.png", "--out", "/proc/saccade", words=("/proc/saccade",))
    refused(capsys, here, "explain", "run", "data/dark/0.png", "--out", "/proc/saccade", words=("/proc/saccade",))
    refused(capsys, here, "data", "make", "shapes", "--out", "/proc/saccade/x", words=("/proc/saccade",))
    refused(capsys, here, "quickstart", "--out", "/proc/saccade", words=("/proc/saccade",))


# Resuming


@pytest.mark.parametrize("folder", ["absent", "data", "mine"])
def test_resume_where_there_is_nothing(here: Path, capsys: Captured, folder: str) -> None:
    (here / "mine").mkdir()
    refused(capsys, here, "train", "--resume", "--out", folder, words=(folder, "nothing to resume"))
    refused(capsys, here, "train", "data", "--resume", "--out", folder, words=(folder, "nothing to resume"))


@pytest.mark.parametrize(
    "options",
    [
        "--epochs 3",
        "--minutes 1",
        "--seed 0",
        "--model resnet18",
        "--batch 8",
        "--size 16",
        "--task classify",
        "--precision fp32",
        "--weights run/best.safetensors",
        "--config run/run.json",
        "--set lr=0.1",
        "--set augment.flip=0",
        "--pretrained",
        "--skip-bad",
        "--no-images",
    ],
)
def test_resume_takes_no_other_options(here: Path, capsys: Captured, options: str) -> None:
    first = options.split()[-1].partition("=")[0] if options.startswith("--set") else options.split()[0].removeprefix("--")
    name = {"skip-bad": "skip_bad", "no-images": "images"}.get(first, first)
    error = refused(
        capsys, here, "train", "--resume", "--out", "run", *options.split(), words=("--resume", "--device, --workers, --on-nan and --shard")
    )
    assert name in error["message"] or name.replace("_", "-") in error["message"]


def test_resume_on_other_images(here: Path, capsys: Captured) -> None:
    shutil.copy(here / "data" / "dark" / "0.png", here / "data" / "dark" / "new.png")
    refused(capsys, here, "train", "--resume", "--out", "run", words=("no longer those",))
    (here / "data" / "dark" / "new.png").unlink()
    (here / "data").rename(here / "moved")
    refused(capsys, here, "train", "--resume", "--out", "run", words=("data", "no such folder"))


def test_resume_finds_moved_data_and_a_finished_run_stays_as_good_as_it_is(here: Path, capsys: Captured) -> None:
    (here / "data").rename(here / "moved")
    best = (here / "run" / "best.safetensors").read_bytes()
    assert main(["train", "moved", "--resume", "--out", "run", "--workers", "1", "--quiet"]) == 0
    assert (here / "run" / "best.safetensors").read_bytes() == best
    assert json.loads((here / "run" / "run.json").read_text())["state"] == "done"


def test_a_run_of_before_that_has_a_setting_of_another_task_goes_on(here: Path, capsys: Captured) -> None:
    record = json.loads((here / "run" / "run.json").read_text())
    record["config"]["segmentation"]["lovasz"] = 1.0
    (here / "run" / "run.json").write_text(json.dumps(record))
    assert main(["train", "--resume", "--out", "run", "--workers", "1", "--quiet"]) == 0
    refused(capsys, here, "train", "data", "--config", "run/run.json", "--out", "new", words=("segmentation.lovasz: is for segment",))


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(here: Path, capsys: Captured, finished: Path) -> None:
    record = json.loads((here / "run" / "run.json").read_text())
    for name in ("checkpoints", "tensorboard", "predictions"):
        shutil.rmtree(here / "run" / name)
    for name in ("best.safetensors", "last.safetensors", "metrics.jsonl", "report.html"):
        (here / "run" / name).unlink()
    (here / "run" / "run.json").write_text(json.dumps({**record, "state": "running", "time": {"started": record["time"]["started"]}}))
    assert main(["train", "--resume", "--out", "run", "--quiet"]) == 0
    assert (here / "run" / "best.safetensors").read_bytes() == (finished / "run" / "best.safetensors").read_bytes()


HOLD = """
import sys
from pathlib import Path
from saccade.core.rundir import RunDir
with RunDir(Path("run")).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.processes
def test_a_run_in_use_by_another_process(here: Path, capsys: Captured) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused(capsys, here, "train", "--resume", "--out", "run", words=("run", "in use by process", str(holder.pid)))
        assert main(["predict", "run", "data/dark/0.png", "--quiet"]) == 0, "reading is free"
        holder.communicate()
    assert main(["train", "--resume", "--out", "run", "--quiet"]) == 0


# Typing errors must not cost a start of torch


@pytest.mark.processes
@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["trian", "data"], "train"),
        (["train", "data", "--modle", "x"], "--model"),
        (["train", "data", "--set", "lrr=1"], "lr"),
        (["train", "data", "--set", "lr=-1"], "lr"),
        (["train", "data", "--model", "resnet81"], "resnet"),
        (["train", "data", "--model", "efficientnett_b0"], "efficientnet_b0"),
        (["train", "gone"], "gone"),
        (["train", "data", "--task", "clasify"], "classify"),
    ],
)
def test_typing_errors_are_found_in_a_second_without_torch(here: Path, argv: list[str], word: str) -> None:
    program = "import sys, time\nfrom saccade.cli.main import main\n"
    program += f"code = main({argv!r})\nprint(code, 'torch' in sys.modules, time.process_time() < 1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=here)
    assert done.stdout == "2 False True\n", done.stderr
    assert word in done.stderr and done.stderr.count("\n") == 1
