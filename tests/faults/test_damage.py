"""Damage to what a run keeps: each cut and each flipped bit is found, the checkpoint before is used, and the end is the same to the bit."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.flips import Flips
from saccade.cli.main import main
from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.files import MANIFEST, read_folder
from saccade.core.rundir import RunDir
from saccade.training import loop
from saccade.training.loop import Trainer
from small_jobs import Outcome, Stopping, fit, go_on, job, one_thread  # noqa: F401

pytestmark = pytest.mark.long

FLIPS, FLIPS_OF_RUN_JSON = 20_000, 24
GENERATIONS = (12, 11)  # the newest first
Spoil = Callable[[Path], None]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunDir, Outcome]]:
    """A finished run with two generations of checkpoints, and what it left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        made = job(tmp_path_factory.mktemp("whole") / "run")
        yield made.run, fit(made)


@pytest.fixture
def run(whole: tuple[RunDir, Outcome], tmp_path: Path) -> RunDir:
    """A copy of it that may be damaged."""
    shutil.copytree(whole[0].path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def generation(run: RunDir, step: int) -> Path:
    return run.checkpoints / f"step-{step:09d}"


def passed_over(run: RunDir) -> str:
    """The newest checkpoint is found to be damaged and the one before is used; the line that tells of it."""
    step, found, lines = run.load_checkpoint()
    assert step == GENERATIONS[1] and found == read_folder(generation(run, GENERATIONS[1]))
    assert len(lines) == 1 and lines[0].startswith(f"passed over checkpoint step-{GENERATIONS[0]}: {generation(run, GENERATIONS[0])}")
    assert "\n" not in lines[0]
    return lines[0]


def cuts(path: Path) -> list[int]:
    """Each 4 KiB, each byte of the header (of a manifest: of all of it), and the last byte."""
    size = path.stat().st_size
    header = size
    if path.suffix == ".safetensors":
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    return sorted({*range(0, size, 4096), *range(min(header, size)), size - 1})


def test_there_are_two_generations(whole: tuple[RunDir, Outcome]) -> None:
    steps = sorted((path.name for path in whole[0].checkpoints.iterdir()), reverse=True)
    assert steps == [generation(whole[0], step).name for step in GENERATIONS]
    names = {path.name for path in generation(whole[0], GENERATIONS[0]).iterdir()}
    assert names == {"model.safetensors", "average.safetensors", "optimizer-train.safetensors", "state.json", MANIFEST}


def test_every_cut_is_found(run: RunDir) -> None:
    tried = 0
    for path in sorted(generation(run, GENERATIONS[0]).iterdir()):
        content = path.read_bytes()
        for size in reversed(cuts(path)):
            os.truncate(path, size)
            if path.name == MANIFEST and size == len(content) - 1:  # its last line break alone: nothing is lost
                assert run.load_checkpoint()[::2] == (GENERATIONS[0], [])
            else:
                assert path.name in passed_over(run)
            tried += 1
        path.write_bytes(content)
    assert tried > 3000 and run.load_checkpoint()[::2] == (GENERATIONS[0], [])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_fifo(path: Path) -> None:
    """Whoever opened it would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def of_the_other_generation(path: Path) -> None:
    other = path.parent.parent / f"step-{GENERATIONS[1]:09d}" / path.name
    path.write_bytes(other.read_bytes())


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


SPOILS: list[Spoil] = [
    Path.unlink,
    lambda path: path.write_bytes(b"") and None,
    a_folder,
    a_link_to_nothing,
    a_link_to_itself,
    a_fifo,
    of_the_other_generation,
    longer,
]
NAMES = [
    "missing",
    "empty",
    "a folder",
    "a link to nothing",
    "a link to itself",
    "a fifo",
    "of the other generation",
    "longer",
]


@pytest.mark.parametrize("spoil", SPOILS, ids=NAMES)
def test_a_file_that_is_not_the_one_is_found(run: RunDir, spoil: Spoil) -> None:
    folder = generation(run, GENERATIONS[0])
    for path in sorted(folder.iterdir()):
        shutil.copytree(folder, run.path / "kept")
        spoil(path)
        assert str(folder) in passed_over(run), path.name
        shutil.rmtree(folder)
        (run.path / "kept").rename(folder)
    assert run.load_checkpoint()[::2] == (GENERATIONS[0], [])


def test_a_whole_generation_that_is_no_folder_is_passed_over(run: RunDir) -> None:
    folder = generation(run, GENERATIONS[0])
    shutil.rmtree(folder)
    for make in (Path.touch, lambda path: path.symlink_to("nowhere"), os.mkfifo, Path.mkdir):
        make(folder)
        passed_over(run)
        folder.rmdir() if folder.is_dir() else folder.unlink()


def test_another_file_and_a_link_to_the_same_bytes_are_harmless(run: RunDir, whole: tuple[RunDir, Outcome]) -> None:
    folder = generation(run, GENERATIONS[0])
    expected = run.load_checkpoint()
    (folder / "notes.txt").write_text("somebody's")
    moved = (folder / "state.json").rename(run.path / "elsewhere.json")
    (folder / "state.json").symlink_to(moved)
    assert run.load_checkpoint() == expected
    assert go_on(job(run.path)).differs(whole[1]) == []


def test_each_of_many_flips_is_found(run: RunDir) -> None:
    flips = Flips(run)
    found = flips.some(FLIPS, random.Random(0))
    flips.close()
    assert not [what for what in found if what.endswith("MISSED")]
    assert sum(found.values()) == FLIPS and sum(n for what, n in found.items() if what.endswith("found")) > 0.99 * FLIPS
    assert {what.split(":")[0] for what in found} == {path.name for path in flips.files}


def test_each_flip_of_the_small_files_and_headers_is_found_or_a_space(run: RunDir) -> None:
    flips = Flips(run)
    for which, (path, content) in enumerate(zip(flips.files, flips.contents, strict=True)):
        header = min(len(content), 8 + int.from_bytes(content[:8], "little"))
        came = {flips.flip(which, bit) for bit in range(0, header * 8, 1 if path.name == MANIFEST else 13)}
        assert "found" in came and "MISSED" not in came, path.name
    flips.close()


def test_when_all_are_damaged_one_line_says_so(run: RunDir) -> None:
    for step in GENERATIONS:
        longer(generation(run, step) / "state.json")
    with pytest.raises(
        UserError, match=r"no checkpoint to resume from; 2 damaged: passed over checkpoint step-12: .*state\.json"
    ) as caught:
        Trainer(job(run.path)).resume()
    assert "\n" not in str(caught.value) and str(run.checkpoints) in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer-train.safetensors", "state.json", MANIFEST])
def test_a_run_goes_on_from_the_one_before_to_the_same_bits(run: RunDir, whole: tuple[RunDir, Outcome], name: str) -> None:
    path = generation(run, GENERATIONS[0]) / name
    path.write_bytes(flipped(path.read_bytes(), 8 * 77 + 3))
    told = Stopping()
    assert go_on(job(run.path, progress=told)).differs(whole[1]) == []
    assert [line for line in told.messages if line.startswith(f"passed over checkpoint step-12: {path.parent}")]
    assert "going on from step 11 of 12" in told.messages


def test_a_digit_that_changes_no_number_is_found_too(run: RunDir) -> None:
    """0.16666666666666667 is the same number as 0.16666666666666666, but not the same file."""
    flips = Flips(run)
    which = flips.files.index(run.best)
    begin = flips.contents[which].index(b"f1_macro")
    assert {flips.flip(which, bit) for bit in range(8 * begin, 8 * (begin + 200))} == {"found"}
    flips.close()


@pytest.mark.parametrize("name", ["best", "last"])
def test_each_cut_of_a_model_is_found(run: RunDir, name: str) -> None:
    path: Path = getattr(run, name)
    for size in reversed(cuts(path)):
        os.truncate(path, size)
        with pytest.raises(UserError) as caught:
            modelfile.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_flip_in_a_file_of_lines_is_refused_in_one_line_or_harmless(run: RunDir, whole: tuple[RunDir, Outcome], name: str) -> None:
    """These have no sums: a digit may turn into another digit. But nothing of the state comes from there, and no reader breaks."""
    run.append_event({"event": "skip", "step": 3, "position": 18})
    path = run.path / name
    content, draws = path.read_bytes(), random.Random(name)
    refused, before = 0, run.load_checkpoint()
    for bit in draws.sample(range(len(content) * 8), min(1200, len(content) * 8)):
        path.write_bytes(flipped(content, bit))
        try:
            Trainer(job(run.path)).resume() if bit % 40 == 0 else (run.metrics(), run.events())
        except UserError as error:
            refused += one_line_about(error, path)
        assert run.load_checkpoint() == before
    assert refused > 100


@pytest.fixture
def real(tiny_folder: Path, tmp_path: Path) -> RunDir:
    """A run by the command."""
    options = ["--model", "small_resnet_8px", "--size", "16", "--epochs", "1", "--device", "cpu"]
    assert main(["train", str(tiny_folder), "--out", str(tmp_path / "real"), *options]) == 0
    return RunDir(tmp_path / "real")


def test_a_flip_in_run_json_is_refused_in_one_line_or_harmless(real: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """In all that a run goes on from: configuration and what was resolved. For the rest see below."""
    content, draws = real.run_file.read_bytes(), random.Random(0)
    command = content.index(b'"command"')
    bits = [bit for bit in range(8 * content.index(b'"data": {')) if not 0 <= bit // 8 - command < len(b'"command"')]
    for bit in draws.sample(bits, FLIPS_OF_RUN_JSON):
        real.run_file.write_bytes(flipped(content, bit))
        capsys.readouterr()
        code = main(["train", "--resume", "--out", str(real.path)])
        said = capsys.readouterr().err
        assert code in (0, 2) and "Traceback" not in said, (bit, said)
        assert code == 0 or said.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("key", ["command", "machine", "path", "fingerprint", "classes", "counts", "ignored", "bad"])
def test_a_key_of_run_json_that_is_another_is_refused_in_one_line(real: RunDir, capsys: pytest.CaptureFixture[str], key: str) -> None:
    content = real.run_file.read_text()
    assert content.count(f'"{key}"') == 1
    real.run_file.write_text(content.replace(f'"{key}"', f'"{key[:-1]}_"'))
    capsys.readouterr()
    code = main(["train", "--resume", "--out", str(real.path)])
    said = capsys.readouterr().err
    assert code in (0, 2) and "Traceback" not in said, said


def one_line_about(error: UserError, path: Path) -> bool:
    assert str(path) in str(error) and "\n" not in str(error)
    return True
