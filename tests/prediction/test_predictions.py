"""The file of JSON lines that grows while `predict` works: readable at any moment, whole or called partial."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.api.models import Predictor
from saccade.api.predicting import predict, predict_each
from saccade.core import files, growing
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.core.results import Classification
from saccade.prediction.pipeline import Failed
from saccade.prediction.predictions import Lines, line

MODEL = Card("classify", ("a", "b", "c"), {}, InputSpec(3, (8, 12)))


class Even:
    """A session that knows nothing: all classes are alike to it."""

    card, batch = MODEL, 4

    def __init__(self, streams: int = 1) -> None:
        self.streams = streams

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {"probabilities": np.full((len(images), 3), 1 / 3, np.float32)}


class Knowing(Predictor):
    def session(self, precision: str = "auto", *, streams: int = 1) -> Even:
        return Even(streams)


@pytest.fixture
def model() -> Knowing:
    return Knowing(MODEL, Path("m"))


def result(source: str) -> Classification:
    return Classification(np.array([1, 0]), np.array([0.75, 0.25]), np.array([0.25, 0.75]), ("a", "b"), source, (1, 2), ())


def sources(path: Path) -> list[str]:
    """The names in a file of whole lines."""
    text = path.read_bytes().decode()
    assert text.endswith("\n") or not text
    return [json.loads(line)["source"] for line in text.splitlines()]


PICTURE = np.zeros((9, 7, 3), np.uint8)


def test_the_file_grows_as_results_come(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with Lines(path) as lines:
        assert lines.partial == tmp_path / "predictions.jsonl.partial"
        for number in range(5):
            assert sources(lines.partial) == [str(n) for n in range(number)]
            lines.write(result(str(number)))
            assert not path.exists()
        assert lines.written == 5
    assert sources(path) == list("01234")
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_nothing_written_is_an_empty_file(tmp_path: Path) -> None:
    with Lines(tmp_path / "p.jsonl"):
        pass
    assert (tmp_path / "p.jsonl").read_bytes() == b""


def test_long_and_strange_lines_are_whole_at_once(tmp_path: Path) -> None:
    names = ["x" * 100_000, "line\u2028break\n\r\x85", "caf\udce9", "\U0001f600" * 5000]
    with Lines(tmp_path / "p.jsonl") as lines:
        for number, name in enumerate(names, 1):
            lines.write(result(name))
            assert lines.partial.read_bytes().count(b"\n") == number
            assert len(sources(lines.partial)) == number
    assert sources(tmp_path / "p.jsonl") == [names[0], names[1], "caf\\udce9", names[3]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, UserError("x"), RuntimeError("y"), SystemExit(1)])
def test_what_ends_it_before_leaves_whole_lines_in_the_partial_file(tmp_path: Path, error: Any) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("earlier")

    def write(n: int) -> None:
        with Lines(path) as lines:
            for number in range(n):
                lines.write(result(str(number)))
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write(3)
    assert sources(tmp_path / "p.jsonl.partial") == ["0", "1", "2"]
    assert path.read_text() == "earlier"
    with pytest.raises(error if isinstance(error, type) else type(error)):
        write(0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.jsonl"], "nothing was written: nothing is left"


def test_an_earlier_file_is_replaced_at_the_end_only_and_an_earlier_partial_one_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("earlier")
    (tmp_path / "p.jsonl.partial").write_text("of a run that was stopped\n")
    with Lines(path) as lines:
        lines.write(result("0"))
        assert path.read_text() == "earlier"
        assert sources(lines.partial) == ["0"]
    assert sources(path) == ["0"]


def test_where_it_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl.partial").mkdir()
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link.jsonl.partial").symlink_to(tmp_path / "target")
    for name in ("folder.jsonl", "link.jsonl", "gone/p.jsonl", "target/p.jsonl", "x" * 300):
        with pytest.raises(UserError, match="cannot write") as caught, Lines(tmp_path / name):
            pass
        assert caught.value.where == f"{tmp_path / name}.partial"
        assert "\n" not in str(caught.value)
    assert (tmp_path / "target").read_text() == "kept"
    (tmp_path / "taken.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot write"), Lines(tmp_path / "taken.jsonl") as lines:
        lines.write(result("0"))
    assert sources(tmp_path / "taken.jsonl.partial") == ["0"], "what was answered is not lost"


class FullDisk:
    """`os.fsync`, `os.replace` or the writing itself fails; the descriptors that it was about are closed all the same."""

    def __init__(self, patch: pytest.MonkeyPatch, what: str) -> None:
        def fail(*args: Any, **options: Any) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(growing.os, what, fail)


@pytest.mark.parametrize("what", ["open", "fsync", "replace"])
def test_a_full_disk_is_one_line_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("earlier")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with monkeypatch.context() as patch:
        FullDisk(patch, what)
        with pytest.raises(UserError, match="no space left") as caught, Lines(path) as lines:
            lines.write(result("0"))
    assert caught.value.fix.startswith("free some space")
    assert path.read_text() == "earlier"
    if what != "open":
        assert sources(tmp_path / "p.jsonl.partial") == ["0"]
    if before:
        assert len(os.listdir("/proc/self/fd")) == before, "the descriptor is given back"


def test_a_disk_that_is_full_while_it_grows_is_one_line(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")

    class Full(Lines):
        def __enter__(self) -> Lines:
            self.file = open("/dev/full", "wb")
            return self

    with pytest.raises(UserError, match="no space left") as caught, Full(tmp_path / "p.jsonl") as lines:
        lines.write(result("0"))
    assert caught.value.where == str(tmp_path / "p.jsonl.partial")
    assert lines.written == 0


def write(lines: Lines, n: int) -> None:
    with lines:
        for number in range(n):
            lines.write(result(str(number)))


def test_a_file_that_may_not_grow_keeps_the_lines_that_are_whole(tmp_path: Path) -> None:
    lines, before = Lines(tmp_path / "p.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(UserError, match="too large") as caught:
            write(lines, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "ulimit" in caught.value.fix
    kept = [row["source"] for row in files.read_lines(tmp_path / "p.jsonl.partial")]
    assert kept == [str(n) for n in range(lines.written)] and len(kept) > 3
    assert not (tmp_path / "p.jsonl").exists()


# Through `predict` and `predict_each`


def test_predict_each_writes_as_it_goes(model: Knowing, tmp_path: Path) -> None:
    inputs = [PICTURE if n % 5 else b"bad" for n in range(40)]
    partial, seen = tmp_path / "o" / "predictions.jsonl.partial", []
    for answer in predict_each(model, inputs, out=tmp_path / "o", progress=Silent()):
        if not isinstance(answer, Failed):
            seen.append(answer.source)
        assert (sources(partial) if seen else []) == seen
    assert seen == [f"input {n}" for n in range(40) if n % 5]
    assert sources(tmp_path / "o" / "predictions.jsonl") == seen
    assert [entry.name for entry in (tmp_path / "o").iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_a_consumer_that_stops_leaves_what_it_saw(model: Knowing, tmp_path: Path, how: str) -> None:
    (tmp_path / "predictions.jsonl").write_text("earlier")
    answers = predict_each(model, itertools.repeat(PICTURE), out=tmp_path, progress=Silent())

    def consume() -> None:
        for number, _ in enumerate(answers):
            if number == 6:
                raise KeyboardInterrupt

    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            consume()
    else:
        for _ in range(7):
            next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert sources(tmp_path / "predictions.jsonl.partial") == [f"input {n}" for n in range(7)]
    assert (tmp_path / "predictions.jsonl").read_text() == "earlier"


def test_strict_and_only_bad_images(model: Knowing, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be an image"):
        list(predict_each(model, [PICTURE, PICTURE, b"bad", PICTURE], out=tmp_path, strict=True, progress=Silent()))
    assert sources(tmp_path / "predictions.jsonl.partial") == ["input 0", "input 1"]
    with pytest.raises(UserError, match="and 1 more"):
        list(predict_each(model, [b"bad", b"bad"], out=tmp_path / "none", progress=Silent()))
    assert list((tmp_path / "none").iterdir()) == []


def test_a_request_at_fault_is_told_before_anything_is_made(model: Knowing, tmp_path: Path) -> None:
    for inputs in ([], iter([]), tmp_path):
        with pytest.raises(UserError, match="no images were given"):
            predict_each(model, inputs, out=tmp_path / "o", progress=Silent())
    with pytest.raises(UserError, match="unknown format"):
        predict(model, [PICTURE], out=tmp_path / "o", format="xml", progress=Silent())
    with pytest.raises(UserError, match="no such"):
        predict_each(tmp_path / "gone.onnx", [PICTURE], out=tmp_path / "o", progress=Silent())
    assert not (tmp_path / "o").exists()


def test_predict_in_json_lines_gives_and_writes_the_same(model: Knowing, tmp_path: Path) -> None:
    found = predict(model, [PICTURE, b"bad", PICTURE], out=tmp_path, format="jsonl", progress=Silent())
    assert (tmp_path / "predictions.jsonl").read_text() == "".join(line(one) for one in found)
    assert [row["source"] for row in found.failed] == ["input 1"]
    again = found.save(tmp_path / "again.jsonl", "jsonl")
    assert again.read_bytes() == (tmp_path / "predictions.jsonl").read_bytes()


class Counted(Silent):
    def __init__(self) -> None:
        self.stages: list[Any] = []
        self.done = 0

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        self.stages.append((name, total, unit))

    def advance(self, n: int = 1) -> None:
        self.done += n

    def finish(self) -> None:
        self.stages.append("finished")


def test_progress_counts_every_image_and_ends_in_any_case(model: Knowing) -> None:
    def endless() -> Iterator[Any]:
        yield from [PICTURE] * 3
        raise UserError("the source is gone")

    shown = Counted()
    assert len(predict(model, [PICTURE, b"bad", PICTURE], progress=shown)) == 2
    assert (shown.stages, shown.done) == ([("predicting", 3, "images"), "finished"], 3)
    shown = Counted()
    with pytest.raises(UserError, match="the source is gone"):
        predict(model, itertools.chain([PICTURE] * 20, endless()), progress=shown)
    assert shown.stages == [("predicting", None, "images"), "finished"]
