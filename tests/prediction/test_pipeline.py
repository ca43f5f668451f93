"""From any input to results: in order, bad files beside good ones, each image answered as if it were alone."""

from __future__ import annotations

import csv
import gc
import io
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.images import Picture
from saccade.core.results import Classification
from saccade.prediction import pipeline
from saccade.prediction.pipeline import Failed
from saccade.prediction.predictions import Predictions
from saccade.prediction.sources import Source, expand
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.classification.task import MEAN, STD
from saccade.tasks.classification.task import Classification as Room

CLASSES = ("red", "=green()", "blue")
SPEC = InputSpec(3, (8, 12), "crop", MEAN, STD)


class Colors:
    """A session whose probabilities are the shares of the three channels; notes the sizes of its batches."""

    card = Card("classify", CLASSES, {}, SPEC)
    streams, batch = 1, 32

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        assert images.shape[1:] == (3, 8, 12)
        self.batches.append(len(images))
        means = images.astype(np.float32).mean((2, 3)) + 1
        return {"probabilities": means / means.sum(1, keepdims=True)}


def predict(inputs: Any, session: Any = None, **options: Any) -> Predictions:
    """All that `stream` gives, in order, as `saccade.predict` sorts it."""
    answers = list(pipeline.stream(session or Colors(), expand(inputs), **options))
    results = tuple(one for one in answers if not isinstance(one, Failed))
    return Predictions(results, tuple(one.to_dict() for one in answers if isinstance(one, Failed)), 1.0)


def picture(number: int) -> NDArray[np.uint8]:
    generator = np.random.Generator(np.random.Philox(number))
    height, width = generator.integers(5, 40, 2)
    return generator.integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_order_is_kept_with_many_threads_and_bad_files_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{n:03d}.png" for n in range(100)]
    for number, path in enumerate(paths):
        if number % 7 == 3:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(picture(number)).save(path)
    read, delays = pipeline.images.read, random.Random(0)
    order: list[str] = []

    def slow(source: Any, **options: Any) -> Any:
        time.sleep(delays.random() * 0.01)
        order.append(str(source))
        return read(source, **options)

    monkeypatch.setattr(pipeline.images, "read", slow)
    session = Colors()
    found = predict(paths, session, workers=8)
    assert order != sorted(order), "the threads were not out of step: this shows nothing"
    assert [result.source for result in found] == [str(p) for n, p in enumerate(paths) if n % 7 != 3]
    assert [row["source"] for row in found.failed] == [str(p) for n, p in enumerate(paths) if n % 7 == 3]
    assert all("must be an image" in row["reason"] for row in found.failed)
    assert [result.size for result in found[:3]] == [picture(n).shape[:2] for n in range(3)]
    assert sum(session.batches) == len(found)
    assert max(session.batches) <= session.batch


def test_any_mix_of_inputs_gives_the_same_answers(tmp_path: Path) -> None:
    pixels, grey = picture(1), picture(1)[..., 0]
    path = tmp_path / "p.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    colour = [
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(pixels),
        pixels,
        pixels[None],
        tensor,
        tensor[None],
        tensor.double() / 255,
    ]
    found = predict([*colour, grey, Image.fromarray(grey), torch.from_numpy(grey), np.stack([grey] * 3, -1)])
    assert not found.failed
    for result in found[: len(colour)]:
        np.testing.assert_array_equal(result.probabilities, found[0].probabilities, err_msg=result.source)
        assert result.size == pixels.shape[:2]
    for result in found[len(colour) :]:
        np.testing.assert_allclose(result.probabilities, 1 / 3, atol=1e-6, err_msg=result.source)
    assert found[2].source == "input 2"
    assert found[0].source == str(path)


def test_what_is_wrong_with_an_input_is_told_and_the_rest_goes_on() -> None:
    inputs = [picture(0), "http://example.org/a.png", b"", np.zeros((3, 4)), 5, np.zeros((2, 2, 7), np.uint8), picture(1)]
    found = predict(inputs)
    assert [result.source for result in found] == ["input 0", "input 6"]
    assert [row["source"] for row in found.failed] == ["http://example.org/a.png", "input 2", "input 3", "input 4", "input 5"]
    assert "never opened" in found.failed[0]["reason"]
    assert len(predict([picture(0)], max_pixels=10).failed) == 1


def test_nothing_and_only_bad_ones() -> None:
    for inputs in ([], [b"no", b"no"]):
        session = Colors()
        found = predict(inputs, session)
        assert (len(found), len(found.failed), session.batches) == (0, len(inputs), [])
        assert found.to_csv() == "source,label,score\n"
        assert found.images_per_second == 0


@pytest.fixture(scope="module")
def network() -> TorchSession:
    torch.manual_seed(0)
    arguments = {"classes": 3, "channels": 3, "width": 16, "blocks": [1, 1], "stem_stride": 1}
    card = Card("classify", CLASSES, {"source": "saccade", "name": "x", "arguments": arguments}, SPEC)
    module = Room().build(card)
    torch.nn.init.normal_(module.network.head.weight)  # it starts near zero, where all answers are alike
    return TorchSession(module.eval(), card, Room().decode)


@pytest.mark.parametrize("batch", [3, 32])
def test_an_answer_does_not_depend_on_its_neighbours(network: TorchSession, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    inputs = [picture(n) for n in range(40)]
    monkeypatch.setattr(network, "batch", 1)
    alone = predict(inputs, network)
    monkeypatch.setattr(network, "batch", batch)
    together = predict([*inputs[:5], b"bad", *inputs[5:]], network)
    assert np.ptp([result.probabilities[0] for result in alone]) > 1e-3
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_few_images_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, lock = [0], threading.Lock()
    read = pipeline.images.read

    def count(source: Any, **options: Any) -> Any:
        with lock:
            counted[0] += 1
        return read(source, **options)

    class Slow(Colors):
        ahead, batch = 0, 4

        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            time.sleep(0.01)
            self.ahead = max(self.ahead, counted[0] - sum(self.batches))
            return super().run(images)

    monkeypatch.setattr(pipeline.images, "read", count)
    session = Slow()
    predict([np.zeros((3, 3), np.uint8)] * 120, session, workers=4)
    assert 4 < session.ahead <= session.batch * (4 + pipeline.AHEAD)


def test_a_session_that_fails_ends_it() -> None:
    class Broken(Colors):
        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            return {"probabilities": np.full((len(images), 3), np.nan, np.float32)}

    with pytest.raises(UserError, match="finite"):
        predict([picture(0)] * 300, Broken())


def left_over() -> list[str]:
    """Threads of a pipeline that are still there."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("saccade-predict")]


class Late(Colors):
    """Answers after a while of its own choice, from several calls at once; knows the most that were inside."""

    def __init__(self, streams: int, batch: int = 3) -> None:
        super().__init__()
        self.streams, self.batch = streams, batch
        self.inside = self.most = 0
        self.lock, self.delays = threading.Lock(), random.Random(0)

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with self.lock:
            self.inside += 1
            self.most, delay = max(self.most, self.inside), self.delays.random() * 0.01
        time.sleep(delay)
        with self.lock:
            self.inside -= 1
            return super().run(images)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("streams", [1, 2, 4])
def test_order_is_kept_with_several_streams(streams: int, workers: int) -> None:
    inputs = [b"bad" if n % 5 == 2 else picture(n) for n in range(70)]
    session = Late(streams)
    answers = list(pipeline.stream(session, expand(inputs), workers=workers))
    assert [answer.source for answer in answers] == [f"input {n}" for n in range(70)]
    assert [isinstance(answer, Failed) for answer in answers] == [n % 5 == 2 for n in range(70)]
    assert session.most == min(streams, workers), "the calls at once are those the session is made for"
    assert max(session.batches) <= 3 and sum(session.batches) == 56
    assert left_over() == []


@pytest.mark.parametrize("streams", [1, 3])
def test_only_images_of_one_shape_share_a_call(monkeypatch: pytest.MonkeyPatch, streams: int) -> None:
    shapes = [(3, 8, 12), (3, 5, 5), (3, 8, 13)]

    class AnyShape(Colors):
        calls: list[tuple[int, ...]]

        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            self.calls.append(images.shape)
            share = images[:, :, 0, 0].astype(np.float32) / 255
            return {"probabilities": share}

    def read(source: Any, session: Any, max_pixels: int, *, prepared: bool) -> Any:
        number = int(source.name.split()[1])
        if number % 7 == 3:
            return Failed(source.name, "bad")
        pixels = np.zeros(shapes[number % 3], np.uint8)
        pixels[:2, 0, 0] = number, 255 - number
        return Picture(pixels, source.name, (number, 1), (f"note {number}",))

    monkeypatch.setattr(pipeline, "_read", read)
    session = AnyShape()
    session.calls, session.streams, session.batch = [], streams, 10
    answers = list(pipeline.stream(session, expand([b""] * 64), workers=3))
    for number, answer in enumerate(answers):
        assert answer.source == f"input {number}"
        if isinstance(answer, Failed):
            assert number % 7 == 3
            continue
        assert (answer.size, answer.notes) == ((number, 1), (f"note {number}",))
        np.testing.assert_allclose(answer.probabilities[0], number / 255, atol=1e-6)
    assert {call[1:] for call in session.calls} == set(shapes)
    assert max(call[0] for call in session.calls) <= 4, "of ten images no more than four are of one shape"


@pytest.mark.parametrize("error", [UserError("the model is at fault"), RuntimeError("a defect"), MemoryError()])
def test_a_session_that_fails_later_ends_it_with_no_thread_left(error: Exception) -> None:
    class Failing(Late):
        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            found = super().run(images)
            if sum(self.batches) >= 30:
                raise error
            return found

    answers: list[Any] = []
    begin = time.monotonic()
    with pytest.raises(type(error)):
        answers.extend(pipeline.stream(Failing(2), expand([picture(0)] * 3000), workers=4))
    assert 3 <= len(answers) < 60 and len(answers) % 3 == 0
    assert time.monotonic() - begin < 5, "it goes through the rest first"
    assert left_over() == []


@pytest.mark.parametrize("taken", [0, 1, 10])
def test_who_stops_early_leaves_no_thread(taken: int) -> None:
    pulled = itertools.count()
    session = Late(2)
    answers = pipeline.stream(session, (Source(picture(n), str(next(pulled))) for n in itertools.count()), workers=4)
    assert [next(answers).source for _ in range(taken)] == [str(n) for n in range(taken)]
    answers.close()
    assert left_over() == []
    assert next(pulled) <= (0 if taken == 0 else 3 * (4 + pipeline.AHEAD + taken // 3))


def test_sources_without_end_are_taken_as_they_are_needed() -> None:
    pulled = [0]

    def endless() -> Iterator[Source]:
        while True:
            pulled[0] += 1
            yield Source(picture(0), str(pulled[0]))

    session = Late(1, batch=4)
    answers = pipeline.stream(session, endless(), workers=3)
    for number in range(1, 101):
        assert next(answers).source == str(number)
        batches = (number + 3) // 4
        assert pulled[0] <= 4 * (3 + pipeline.AHEAD + batches - 1), "at most the batches in the threads and AHEAD more"
    answers.close()
    assert left_over() == []


@pytest.mark.parametrize("after", [0, 1, 40])
def test_sources_that_fail_end_it(after: int) -> None:
    def sources() -> Iterator[Source]:
        yield from (Source(picture(0), str(n)) for n in range(after))
        raise UserError("cannot list the folder", where="b")

    with pytest.raises(UserError, match="cannot list"):
        list(pipeline.stream(Late(2), sources(), workers=2))
    assert left_over() == []


def test_what_came_before_sources_that_fail_is_answered() -> None:
    def sources() -> Iterator[Source]:
        yield from (Source(picture(0), str(n)) for n in range(40))
        raise UserError("cannot list the folder", where="b")

    answers: list[Any] = []
    with pytest.raises(UserError, match="cannot list"):
        answers.extend(pipeline.stream(Late(2, batch=4), sources(), workers=2))
    assert [answer.source for answer in answers] == [str(n) for n in range(40)]


def test_an_interruption_of_who_consumes_leaves_no_thread() -> None:
    def consume() -> None:
        for number, _ in enumerate(pipeline.stream(Late(2), expand([picture(0)] * 500), workers=4)):
            if number == 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        consume()
    del caught
    gc.collect()
    assert left_over() == []


def test_two_at_once_keep_to_themselves() -> None:
    found: dict[int, list[str]] = {}

    def consume(place: int) -> None:
        sources = (Source(picture(n), f"{place} {n}") for n in range(60))
        found[place] = [answer.source for answer in pipeline.stream(Late(2), sources, workers=2)]

    threads = [threading.Thread(target=consume, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: [f"{place} {n}" for n in range(60)] for place in range(3)}


NASTY = ["=1+1.png", "-x.png", "@a.png", "a,b.png", 'q"q.png', "line\u2028break.png", "é.png", "+.png", os.fsdecode(b"caf\xe9.png")]


@pytest.fixture
def nasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictions:
    (tmp_path / "n").mkdir()
    monkeypatch.chdir(tmp_path / "n")
    for name in NASTY:
        Image.new("RGB", (4, 4), (0, 200, 0)).save("saved.png")
        os.rename("saved.png", name)
    found = predict([*NASTY, "gone.png"])
    assert len(found) == len(NASTY)
    return found


def test_csv_is_read_back_with_cells_defused(nasty: Predictions, tmp_path: Path) -> None:
    path = nasty.save(tmp_path / "p.csv", "csv")
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    assert rows[0] == ["source", "label", "score", "red", "'=green()", "blue"]
    assert [row[0] for row in rows[1:]] == ["'=1+1.png", "'-x.png", "'@a.png", *NASTY[3:7], "'+.png", "caf\\udce9.png"]
    assert {row[1] for row in rows[1:]} == {"'=green()"}
    for row, result in zip(rows[1:], nasty, strict=True):
        np.testing.assert_allclose([float(cell) for cell in row[3:]], result.probabilities, atol=1e-6)
        assert not any(cell[:1] in "=+-@\t\r" for cell in row if cell)


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_is_read_back(nasty: Predictions, tmp_path: Path, form: str) -> None:
    text = nasty.save(tmp_path / "p", form).read_bytes().decode("utf-8")
    if form == "jsonl":
        assert len(text.splitlines()) == len(nasty), "one line a result, by every reader's idea of a line"
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        whole = json.loads(text)
        assert set(whole) == {"results", "failed", "images_per_second"}
        assert whole["failed"] == [{"source": "gone.png", "reason": "no such file"}]
        rows = whole["results"]
    for row, result in zip(rows, nasty, strict=True):
        back = Classification.from_dict(row, CLASSES)
        np.testing.assert_array_equal(back.probabilities, result.probabilities)
        assert (back.label, back.size) == (result.label, result.size)
    assert [row["source"] for row in rows[:8]] == NASTY[:8]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="json, jsonl or csv"):
        predict([picture(0)]).save(tmp_path / "p", "xml")
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_view_escapes_names_and_stays_short() -> None:
    found = predict([picture(0)] * 60 + ["<script>.png"])
    page = found._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;.png" in page
    assert "and 10 more" in page
    assert page.count("<tr>") == 51
