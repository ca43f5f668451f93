"""Progress: the arithmetic of rate and time left, and what each kind writes where."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import sys
import types

import pytest

from saccade.core import progress
from saccade.core.progress import Bar, Meter, Notebook, Plain, Silent, automatic, format_rate, format_time


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(shown: progress.Progress, clock: Clock, steps: int, *, units: int, seconds: float) -> None:
    for _ in range(steps):
        clock.tick(seconds)
        shown.advance(units)


def test_rate_and_time_left(clock: Clock) -> None:
    meter = Meter("train", 1200, clock=clock)
    assert (meter.rate, meter.left) == (None, None)
    for _ in range(10):
        clock.tick(1)
        meter.advance(30)
    assert meter.rate == pytest.approx(30)
    assert meter.left == pytest.approx(30)
    assert meter.text() == "300/1,200 images, 30.0 images/s, 0:30 left"


def test_a_resumed_stage_counts_only_what_it_did_itself(clock: Clock) -> None:
    meter = Meter("train", 1000, done=900, clock=clock)
    clock.tick(10)
    meter.advance(50)
    assert meter.rate == pytest.approx(5)
    assert meter.left == pytest.approx(10)
    assert meter.text(final=True) == "950/1,000 images, 5.0 images/s, in 0:10"


def test_the_rate_follows_a_change_and_the_mean_does_not(clock: Clock) -> None:
    meter = Meter("read", 10_000, clock=clock)
    for units in [10] * 100 + [100] * 100:
        clock.tick(1)
        meter.advance(units)
    assert meter.rate == pytest.approx(100, rel=0.05)
    assert meter.mean_rate == pytest.approx(55)


def test_many_small_advances_keep_few_marks(clock: Clock) -> None:
    meter = Meter("read", None, clock=clock)
    for _ in range(100_000):
        clock.tick(0.01)
        meter.advance(1)
    assert len(meter._marks) < 40
    assert meter.rate == pytest.approx(100, rel=0.01)


def test_a_stall_lowers_the_rate(clock: Clock) -> None:
    meter = Meter("read", 100, clock=clock)
    clock.tick(1)
    meter.advance(10)
    clock.tick(9)
    assert meter.rate == pytest.approx(1)


def test_unknown_and_zero_totals_and_more_than_expected(clock: Clock) -> None:
    unknown = Meter("read", None, "files", clock=clock)
    clock.tick(2)
    unknown.advance(7)
    assert unknown.text() == "7 files, 3.5 files/s"
    assert Meter("read", 0, clock=clock).text() == "0/0 images"
    over = Meter("read", 5, clock=clock)
    clock.tick(1)
    over.advance(8)
    assert over.left == 0


@pytest.mark.parametrize(("rate", "text"), [(1934.2, "1,934"), (99.96, "100.0"), (53.06, "53.1"), (3.14, "3.1"), (0.254, "0.25")])
def test_format_rate(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")])
def test_format_time(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_plain_prints_a_line_every_five_seconds_and_one_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    plain = Plain(stream, clock=clock)
    plain.start("train", 120)
    plain.note("loss 0.5")
    run(plain, clock, 12, units=10, seconds=1)
    plain.finish()
    plain.finish()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "train: 50/120 images, 10.0 images/s, 0:07 left, loss 0.5",
        "train: 100/120 images, 10.0 images/s, 0:02 left, loss 0.5",
        "train: 120/120 images, 10.0 images/s, in 0:12, loss 0.5",
    ]


def test_plain_starting_anew_ends_the_open_stage(clock: Clock) -> None:
    stream = io.StringIO()
    plain = Plain(stream, clock=clock)
    plain.start("read", 3)
    plain.advance(3)
    plain.start("train", None, "steps")
    plain.finish()
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == ["read", "train"]


def test_calls_outside_a_stage_do_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    for shown in (Plain(stream, clock=clock), Bar(stream, clock=clock), Silent()):
        shown.advance()
        shown.note("x")
        shown.finish()
    assert stream.getvalue() == ""


def test_messages_are_one_line_each() -> None:
    stream = io.StringIO()
    Plain(stream).message("cat\n\x1b[31m.png")
    Bar(stream).message("[bold]dog[/bold] " + "x" * 200)
    assert stream.getvalue().splitlines() == ["cat [31m.png", "[bold]dog[/bold] " + "x" * 200]


def test_a_broken_stream_stops_no_work(clock: Clock) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        plain = Plain(stream, clock=clock)
        plain.start("train", 10)
        run(plain, clock, 2, units=5, seconds=6)
        plain.finish()
        plain.message("done")
        # What could not be written stays in Python's buffer; the descriptor is changed so that closing finds a taker.
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    plain.message("after the stream was closed")


def test_bar_on_a_terminal_updates_in_place_and_stays_at_its_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    main, side = pty.openpty()
    with os.fdopen(side, "w") as terminal:
        bar = Bar(terminal, clock=clock)
        before = sys.stdout
        bar.start("[b]train", 40)
        assert sys.stdout is before, "standard output is the result's"
        bar.note("loss 0.25")
        run(bar, clock, 4, units=10, seconds=1)
        bar.message("a line for the user")
        bar.finish()
        written = b""
        while select.select([main], [], [], 0.5)[0]:  # a terminal hands over what it has, not all that was written
            written += os.read(main, 1 << 16)
        shown = written.decode()
    os.close(main)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "a line for the user" in plain
    assert "[b]train" in plain
    assert "40/40 images, 10.0 images/s, in 0:04, loss 0.25" in plain
    assert "\x1b[?25h" in shown, "the cursor is shown again"
    assert "\x1b[2K" in shown, "the line is redrawn in place"


def test_a_bar_leaves_standard_output_alone(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(clock=clock)
    bar.start("train", 2)
    sys.stdout.write("result\n")
    bar.advance(2)
    bar.finish()
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert "2/2 images" in captured.err


class Handle:
    """What IPython's display gives back."""

    def __init__(self, pages: list[str]) -> None:
        self.pages = pages

    def update(self, page: str) -> None:
        self.pages.append(page)


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A pretended IPython, the environment has none: the pages of each display, first to last."""
    shown: list[list[str]] = []

    def display(page: str, display_id: bool = False) -> Handle:
        shown.append([page])
        return Handle(shown[-1])

    root, module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    module.display, module.HTML = display, str  # type: ignore[attr-defined]
    root.display = module  # type: ignore[attr-defined]
    root.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", root)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_a_notebook_updates_one_display(displays: list[list[str]], clock: Clock) -> None:
    notebook = Notebook(clock=clock)
    notebook.start("<train>", 4)
    run(notebook, clock, 4, units=1, seconds=1)
    notebook.finish()
    notebook.message("<b>done")
    assert len(displays) == 2
    assert 'max="4" value="0"' in displays[0][0]
    assert 'max="4" value="4"' in displays[0][-1]
    assert "&lt;train&gt;: 4/4 images" in displays[0][-1]
    assert "<div>&lt;b&gt;done</div>" in displays[1][0]


def test_a_notebook_with_unknown_and_zero_totals(displays: list[list[str]], clock: Clock) -> None:
    notebook = Notebook(clock=clock)
    for total in (None, 0):
        notebook.start("read", total)
        notebook.finish()
    assert "<progress style" in displays[0][0], "an unknown total has no value: the browser shows it moving"
    assert all('max="1" value="1"' in pages[-1] for pages in displays)


def test_automatic_picks_by_where_it_runs(displays: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(automatic(quiet=True), Silent)
    assert isinstance(automatic(), Notebook)
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(automatic(), Plain)
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    assert isinstance(automatic(), Bar)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(automatic(), Plain)
    automatic().message("nobody hears it")
