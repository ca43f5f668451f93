"""Videos: each frame answered for, lines and a video with the answers drawn over it; frames are never held."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tracemalloc
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import UserError
from saccade.api.models import Predictor
from saccade.cli.main import main
from saccade.core.card import Card, InputSpec
from saccade.core.moment import Moment
from saccade.core.progress import Silent
from saccade.core.results import Classification, Detections
from saccade.core.segmentation import Segmentation
from saccade.core.video import frames
from saccade.prediction import sources
from saccade.prediction.pipeline import AHEAD, Failed
from saccade.prediction.session import BATCH, cores

RED = (230, 20, 20)


class Finder:
    """A session that finds the red pixels."""

    streams, batch = 1, BATCH

    def __init__(self, card: Card) -> None:
        self.card = card

    def run(self, images: np.ndarray[Any, Any]) -> dict[str, Any]:
        red = (images[:, 0] > 150) & (images[:, 1] < 90)
        if self.card.task == "classify":
            share = red.any((1, 2)).astype(np.float32)
            return {"probabilities": np.stack([share, 1 - share], 1)}
        if self.card.task == "segment":
            return {"logits": np.stack([~red, red], 1).astype(np.float32)}
        boxes = np.zeros((len(images), 1, 4), np.float32)
        for number, one in enumerate(red):
            if one.any():
                rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
                boxes[number, 0] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return {"boxes": boxes, "scores": red.any((1, 2))[:, None].astype(np.float32), "labels": np.zeros((len(images), 1), np.float32)}


@dataclass(frozen=True)
class Oracle(Predictor):
    def session(self, precision: str = "auto", *, streams: int = 1) -> Any:
        return Finder(self.card)


def oracle(task: str) -> Oracle:
    spec = InputSpec(3, (64, 96), {"classify": "crop", "detect": "fit", "segment": "native"}[task])
    classes = ("background", "red") if task == "segment" else ("red", "none") if task == "classify" else ("red",)
    return Oracle(Card(task, classes, {}, spec), Path("oracle"))


def clip(path: Path, count: int, *, rate: int = 10, size: tuple[int, int] = (64, 96), step: int = 2) -> Path:
    """A red square of 20 pixels on grey, `step` pixels further to the right in each frame."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=rate)
        (stream.height, stream.width), stream.pix_fmt, stream.bit_rate = size, "yuv420p", 4_000_000
        for number in range(count):
            page = np.full((*size, 3), 120, np.uint8)
            page[10:30, step * number : step * number + 20] = RED
            frame: Any = av.VideoFrame.from_ndarray(page, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 10 a second; read-only."""
    return clip(tmp_path_factory.mktemp("film") / "clip one.mp4", 30)


def test_each_frame_is_answered_for_in_order_and_drawn(film: Path, tmp_path: Path) -> None:
    tmp_path /= "o"
    answers: Any = saccade.predict(oracle("detect"), film, out=tmp_path, progress=Silent())
    assert sorted(os.listdir(tmp_path)) == ["000000-clip_one.webm", "predictions.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert rows == answers.to_dict()["results"]
    assert [(row["frame"], row["time"], row["source"]) for row in rows] == [(n, n / 10, f"{film}#{n}") for n in range(30)]
    for number, row in enumerate(rows):
        assert np.allclose(row["boxes"], [[2 * number, 10, 2 * number + 20, 30]], atol=2), row
    assert Detections.from_dict(rows[7], ("red",)).moment == Moment(7, 0.7)
    drawn = list(frames(str(tmp_path / "000000-clip_one.webm")))
    assert [moment.time for moment, _ in drawn] == [n / 10 for n in range(30)]
    assert drawn[0][1].shape == (256, 384, 3), "small pictures are enlarged"
    blue = [(pixels[..., 2] > 120) & (pixels[..., 0] < 80) for _, pixels in drawn]
    lefts = [int(np.flatnonzero(edge[80:120].any(0))[0]) for edge in blue]
    assert np.allclose(lefts, [8 * n for n in range(30)], atol=6), "each box lies over its own frame"


@pytest.mark.parametrize(("task", "kind"), [("classify", Classification), ("segment", Segmentation)])
def test_every_room_that_answers_draws_videos(film: Path, tmp_path: Path, task: str, kind: Any) -> None:
    answers: Any = saccade.predict(oracle(task), [film], out=tmp_path, progress=Silent())
    assert len(answers) == 30 and isinstance(answers[0], kind)
    assert [one.moment for one in answers] == [Moment(n, n / 10) for n in range(30)]
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    again = kind.from_dict(rows[3], oracle(task).card.classes)
    assert again.moment == Moment(3, 0.3)
    assert len(list(frames(str(tmp_path / "000000-clip_one.webm")))) == 30


def test_videos_among_images_and_other_formats(film: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), RED, np.uint8)).save(tmp_path / "red.png")
    second = clip(tmp_path / "b.mkv", 3)
    out = tmp_path / "out"
    answers = saccade.predict(oracle("detect"), [tmp_path / "red.png", second, film], out=out, format="csv", progress=Silent())
    assert sorted(os.listdir(out)) == ["000001-b.webm", "000002-clip_one.webm", "predictions.csv"]
    table = list(csv.DictReader(io.StringIO((out / "predictions.csv").read_text())))
    assert [row["source"] for row in table[:4]] == [str(tmp_path / "red.png"), f"{second}#0", f"{second}#1", f"{second}#2"]
    assert len(answers) == len(table) == 34
    assert "frame" not in answers[0].to_dict()
    assert [one.source for one in saccade.predict(oracle("detect"), tmp_path, progress=Silent())] == [str(tmp_path / "red.png")]
    assert len(saccade.predict(oracle("detect"), str(tmp_path / "*.mkv"), progress=Silent())) == 3


@pytest.mark.parametrize("form", ["png", "coco", "yolo"])
def test_formats_of_images_are_refused(film: Path, tmp_path: Path, form: str) -> None:
    with pytest.raises(UserError, match="are of images, not of videos"):
        saccade.predict(oracle("detect"), film, out=tmp_path / "out", format=form, progress=Silent())
    assert not (tmp_path / "out").exists()


def test_a_bad_video_is_reported_and_the_rest_goes_on(film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    answers = saccade.predict(oracle("detect"), [tmp_path / "bad.mp4", film, tmp_path / "none.avi"], out=tmp_path / "o", progress=Silent())
    assert len(answers) == 30
    assert [row["source"] for row in answers.failed] == [str(tmp_path / "bad.mp4"), str(tmp_path / "none.avi")]
    assert sorted(os.listdir(tmp_path / "o")) == ["000001-clip_one.webm", "predictions.jsonl"]
    with pytest.raises(UserError, match=r"bad.mp4: is no video, or is damaged"):
        saccade.predict(oracle("detect"), tmp_path / "bad.mp4", progress=Silent())
    with pytest.raises(UserError, match="no such file"):
        saccade.predict(oracle("detect"), [film, tmp_path / "none.avi"], strict=True, progress=Silent())


def test_without_pyav_one_line_and_nothing_written(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"videos need the package av, .* \(pip install 'saccade\[video\]'\)"):
        saccade.predict(oracle("detect"), film, out=tmp_path / "o", progress=Silent())
    assert not list(tmp_path.glob("o/*"))


def test_frames_are_decoded_as_they_are_needed_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 frames of 240x320 are 46 MB; those of a few batches are there at once."""
    path = clip(tmp_path / "long.mkv", 200, size=(240, 320), step=0)
    read = [0]

    def counted(*args: Any, **options: Any) -> Any:
        for one in frames(*args, **options):
            read[0] += 1
            yield one

    monkeypatch.setattr(sources.video, "frames", counted)
    tracemalloc.start()
    answers = saccade.predict_each(oracle("detect"), path, out=tmp_path / "o", progress=Silent())
    given = 0
    for given, answer in enumerate(answers, 1):
        assert not isinstance(answer, Failed)
        assert read[0] - given <= BATCH * (cores() + AHEAD + 3), "frames pile up"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert given == 200 and peak < 25_000_000, peak


def test_a_reader_that_stops_leaves_partial_files(film: Path, tmp_path: Path) -> None:
    tmp_path /= "o"
    answers = saccade.predict_each(oracle("detect"), film, out=tmp_path, progress=Silent())
    for _ in range(5):
        next(answers)
    answers.close()  # type: ignore[attr-defined]
    del answers
    assert sorted(os.listdir(tmp_path)) == ["000000-clip_one.webm.partial", "predictions.jsonl.partial"]
    assert len(list(frames(str(tmp_path / "000000-clip_one.webm.partial")))) == 5


def test_on_the_command_line(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("saccade.api.predicting.load", lambda target, device: oracle("detect"))
    assert main(["predict", "model", str(film), "--out", str(tmp_path / "o"), "--quiet"]) == 0
    assert capsys.readouterr().out == f"30 results written to {tmp_path / 'o'}\n"
    assert sorted(os.listdir(tmp_path / "o")) == ["000000-clip_one.webm", "predictions.jsonl"]
    assert main(["predict", "model", str(film), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30 and lines[4] == f"{film}#4: 1 red"
    assert main(["predict", "model", str(film), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][9]["frame"] == 9
    assert main(["predict", "model", str(tmp_path / "none.mp4"), "--quiet"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path / 'none.mp4'}: no such file"
