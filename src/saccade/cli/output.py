"""What goes to standard output: one JSON object, or tidy text. Colours and tables only as far as the terminal takes them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from saccade.cli.main import OutputClosedError, flush
from saccade.core.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNDECODED = frozenset(map(chr, range(0xDC80, 0xDD00)))  # how Python keeps the bytes of a file name that is not UTF-8

_PIECE = 1 << 15


def say(text: str = "") -> None:
    """One line of text; control characters of file or class names are blanked."""
    raw("".join(c if c.isprintable() or c in _UNDECODED else " " for c in text).rstrip() + "\n")


def raw(text: str) -> None:
    """Text as it is; what the output's encoding cannot hold (a file name that is not UTF-8) is escaped."""
    try:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        # In pieces: under PYTHONUNBUFFERED Python forgets the rest of a write that a closing pipe cut short.
        for start in range(0, len(text), _PIECE):
            sys.stdout.write(text[start : start + _PIECE])
    except BrokenPipeError:
        raise OutputClosedError from None


def say_json(value: Mapping[str, Any]) -> None:
    """The one JSON object, strict, on one line."""
    import json

    from saccade.core.files import dumps

    text = dumps(dict(value))
    # Escapes are JSON's own: whatever a file is called, the line is valid in any encoding.
    raw((text if text.isascii() else json.dumps(json.loads(text), allow_nan=False)) + "\n")


def line(value: Mapping[str, Any]) -> None:
    """One object of many, on a line of its own, at once."""
    from saccade.core.files import dumps

    raw(dumps(dict(value)) + "\n")
    flush()


def pairs(rows: Sequence[tuple[str, object]]) -> None:
    """Lines of `name   value`, the values aligned."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        say(f"{name:<{width}}  {number(value)}")


def number(value: object) -> str:
    """A value as a person reads it: three or four figures, thousands apart, `-` for what is not defined."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def figure(value: object) -> str:
    """A metric: four decimals, and no sign before what rounds to zero."""
    return f"{round(value, 4) + 0.0:.4f}" if isinstance(value, float) else number(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns: the first to the left, the others to the right; the heads are bold on a terminal."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        grid.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(one_line(figure(cell))) for cell in row))
    _print(grid)


def _print(grid: Table) -> None:
    console = _console()
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        raw(line.rstrip() + "\n")


def _console() -> Console:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    if not console.is_terminal:  # a pipe has no width: nothing is cut
        console.width = 10_000
    return console


def metrics(values: Mapping[str, Any], intervals: Mapping[str, Any] | None = None) -> None:
    """The figures, with their 95 % intervals where there are any."""
    if intervals:
        rows = [[name, value, *_bounds(intervals.get(name))] for name, value in values.items()]
        table(["metric", "value", "95 % from", "to"], rows)
    else:
        table(["metric", "value"], [[name, value] for name, value in values.items()])


def _bounds(interval: Sequence[float] | None) -> tuple[object, object]:
    return (interval[0], interval[1]) if interval else (None, None)


def rows_of(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of objects with the same keys; nested values are left to the JSON."""
    if rows:
        names = [name for name, value in rows[0].items() if not isinstance(value, list | dict)]
        table(names, [[row.get(name) for name in names] for row in rows])


def usage(context: click.Context, message: str) -> NoReturn:
    """End with a usage error of this command: one line, exit code 2."""
    raise click.UsageError(message, context)
