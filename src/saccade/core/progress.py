"""How far long work is: a rich bar on a terminal, a plain line every few seconds elsewhere, one display in a notebook.

All of it goes to standard error. The clock is monotonic, so that a clock set back or forward changes no rate.
A stream that breaks (a closed pipe, a full disk) silences the progress and never stops the work.
"""

from __future__ import annotations

import html
import importlib
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from saccade.core.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Clock = Callable[[], float]

WINDOW = 30.0  # seconds that the shown rate looks back: long enough to be steady, short enough to follow a change
LINE_EVERY = 5.0  # seconds between two lines of Plain
SHOW_EVERY = 0.1  # seconds between two updates of a bar
NOTEBOOK_EVERY = 0.25  # seconds between two updates of a notebook's display


class Progress(Protocol):
    """What long work reports to. Calls come from one thread; `start` ends a stage that is still open."""

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        """Open a stage of `total` units (None: unknown), of which `done` were finished before (a resumed run)."""
        ...

    def advance(self, n: int = 1) -> None:
        """`n` more units are done."""
        ...

    def note(self, text: str) -> None:
        """Show `text` beside the figures, e.g. "loss 0.12 accuracy 0.97"."""
        ...

    def finish(self) -> None:
        """Close the stage; nothing happens when none is open."""
        ...

    def message(self, text: str) -> None:
        """One line for the user."""
        ...


class Meter:
    """The arithmetic of one stage: units done, rate, time left. Draws nothing."""

    def __init__(self, name: str, total: int | None, unit: str = "images", *, done: int = 0, clock: Clock = time.monotonic) -> None:
        self.name = one_line(name)
        self.total = total
        self.unit = unit
        self.done = done
        self.note = ""
        self._first = done
        self._clock = clock
        self._began = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._began, done)])

    def advance(self, n: int) -> None:
        """`n` more units are done."""
        self.done += n
        now = self._clock()
        if now - self._marks[-1][0] >= WINDOW / 30:
            self._marks.append((now, self.done))
        while len(self._marks) > 1 and now - self._marks[1][0] >= WINDOW:
            self._marks.popleft()

    @property
    def seconds(self) -> float:
        """Seconds since the stage was opened."""
        return self._clock() - self._began

    @property
    def rate(self) -> float | None:
        """Units a second over the last half minute; None before anything was measured."""
        then, done = self._marks[0]
        return _ratio(self.done - done, self._clock() - then)

    @property
    def mean_rate(self) -> float | None:
        """Units a second over the whole stage, without those done before it was opened."""
        return _ratio(self.done - self._first, self.seconds)

    @property
    def left(self) -> float | None:
        """Seconds left; None where the total or the rate is unknown."""
        if self.total is None or (rate := self.rate) is None:
            return None
        return max(self.total - self.done, 0) / rate

    @property
    def count(self) -> str:
        """`300/1,200 images`, or `300 images` where the total is unknown."""
        total = "" if self.total is None else f"/{self.total:,}"
        return f"{self.done:,}{total} {self.unit}"

    def text(self, *, final: bool = False) -> str:
        """Count, rate, time left (at the end: time taken) and note, as one line without the name."""
        rate = self.mean_rate if final else self.rate
        parts = [self.count]
        if rate is not None:
            parts.append(f"{format_rate(rate)} {self.unit}/s")
        if final:
            parts.append(f"in {format_time(self.seconds)}")
        elif (left := self.left) is not None:
            parts.append(f"{format_time(left)} left")
        return ", ".join([*parts, *([self.note] if self.note else [])])


def _ratio(units: int, seconds: float) -> float | None:
    return units / seconds if units > 0 and seconds > 0 else None


def format_rate(rate: float) -> str:
    """Three figures at most: `1,934`, `53.1`, `0.25`."""
    if rate >= 100:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def format_time(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Silent:
    """Says nothing."""

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        """Nothing."""

    def advance(self, n: int = 1) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


class _Staged(ABC):
    """What the drawing ones share: one meter, drawn at most every `every` seconds."""

    every = LINE_EVERY

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._meter: Meter | None = None
        self._drawn = 0.0

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        """Open a stage; see `Progress.start`."""
        self.finish()
        self._meter = Meter(name, total, unit, done=done, clock=self._clock)
        self._drawn = self._clock()
        self._open(self._meter)

    def advance(self, n: int = 1) -> None:
        """`n` more units are done; drawn when the last drawing is old enough."""
        if self._meter is None:
            return
        self._meter.advance(n)
        if self._clock() - self._drawn >= self.every:
            self._drawn = self._clock()
            self._draw(self._meter)

    def note(self, text: str) -> None:
        """Show `text` from the next drawing on."""
        if self._meter is not None:
            self._meter.note = one_line(text)

    def finish(self) -> None:
        """Draw the stage a last time and close it."""
        meter, self._meter = self._meter, None
        if meter is not None:
            self._close(meter)

    @abstractmethod
    def _open(self, meter: Meter) -> None:
        """Show a stage that begins."""

    @abstractmethod
    def _draw(self, meter: Meter) -> None:
        """Show how far it is."""

    @abstractmethod
    def _close(self, meter: Meter) -> None:
        """Show its end."""


class Plain(_Staged):
    """A line every five seconds at most, and one at the end of a stage: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = _Tolerant(stream)

    def message(self, text: str) -> None:
        """One line for the user."""
        self._stream.write(one_line(text) + "\n")
        self._stream.flush()

    def _open(self, meter: Meter) -> None:
        pass

    def _draw(self, meter: Meter) -> None:
        self.message(f"{meter.name}: {meter.text()}")

    def _close(self, meter: Meter) -> None:
        self.message(f"{meter.name}: {meter.text(final=True)}")


class Bar(_Staged):
    """A rich bar, redrawn ten times a second at most: for terminals. The finished bar stays on the screen."""

    every = SHOW_EVERY

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = _Tolerant(stream)
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None

    def message(self, text: str) -> None:
        """One line for the user, above the bar."""
        console = self._rich.console if self._rich is not None else self._console()
        console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def _console(self) -> Console:
        from rich.console import Console

        return Console(file=cast(TextIO, self._stream))

    def _open(self, meter: Meter) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}", markup=False), BarColumn(24), TextColumn("{task.fields[text]}", markup=False))
        # Standard output is the result's: rich must not send it to standard error.
        self._rich = RichProgress(*columns, console=self._console(), redirect_stdout=False, refresh_per_second=1 / SHOW_EVERY)
        self._task = self._rich.add_task(meter.name, total=meter.total, completed=meter.done, text=meter.text())
        self._rich.start()

    def _draw(self, meter: Meter) -> None:
        self._update(meter, meter.text())

    def _update(self, meter: Meter, text: str) -> None:
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, completed=meter.done, text=text)

    def _close(self, meter: Meter) -> None:
        rich = self._rich
        if rich is None:
            return
        if meter.total is None and self._task is not None:  # a pulsing bar that nothing moves any more would look alive
            rich.update(self._task, total=meter.done or 1)
        self._update(meter, meter.text(final=True))
        rich.stop()
        self._rich = None


class Notebook(_Staged):
    """One IPython display that is updated in place, as plain HTML: needs no widgets and survives in a saved notebook."""

    every = NOTEBOOK_EVERY

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._display: ModuleType = importlib.import_module("IPython.display")
        self._handle: Any = None

    def message(self, text: str) -> None:
        """One line for the user, in the cell's output."""
        self._display.display(self._display.HTML(f"<div>{html.escape(one_line(text))}</div>"))

    def _open(self, meter: Meter) -> None:
        self._handle = self._display.display(self._page(meter), display_id=True)

    def _draw(self, meter: Meter) -> None:
        self._handle.update(self._page(meter))

    def _close(self, meter: Meter) -> None:
        self._handle.update(self._page(meter, final=True))

    def _page(self, meter: Meter, *, final: bool = False) -> Any:
        bounds = "" if meter.total is None else f' max="{max(meter.total, 1)}" value="{meter.done if meter.total else 1}"'
        if final and meter.total is None:
            bounds = ' max="1" value="1"'
        words = html.escape(f"{meter.name}: {meter.text(final=final)}")
        return self._display.HTML(f'<div><progress{bounds} style="width:16em"></progress> {words}</div>')


class _Tolerant:
    """A text stream whose failure (closed pipe, full disk, lost terminal) is nobody's concern: it falls silent."""

    def __init__(self, stream: TextIO | None) -> None:
        # Taken once: while a bar is up, rich puts a proxy in the place of sys.stderr, which would write to itself.
        self._stream = stream if stream is not None else sys.stderr

    @property
    def encoding(self) -> str:
        """The stream's encoding; rich asks for it to choose the bar's characters."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeEncodeError:
            return self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):  # ValueError: the stream was closed
            pass
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            pass

    def isatty(self) -> bool:
        """Whether a person watches it."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """The stream's descriptor; rich asks for it to measure the terminal."""
        if self._stream is None:
            raise OSError("no stream")
        return self._stream.fileno()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def automatic(quiet: bool = False) -> Progress:
    """Silent if `quiet`, in a notebook Notebook, on a terminal Bar, else Plain."""
    if quiet:
        return Silent()
    if _in_notebook():
        return Notebook()
    return Bar() if is_terminal(sys.stderr) else Plain()


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this process; IPython is not imported to find out."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None
