"""The few error classes, and the one sentence a user reads: what it must be, what it was, where, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class SaccadeError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class UserError(SaccadeError):
    """The request or its data are at fault (exit code 2).

    `message` says what must be and what was, `where` names the file, row or option, `fix` what would help; `findings`: all that is wrong
    with a data set, as `data check --json` has it, where the message names the first.
    """

    exit_code = 2

    def __init__(self, message: str, *, where: str = "", fix: str = "", findings: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message, where, fix)
        self.message = one_line(message)
        self.where = one_line(where)
        self.fix = one_line(fix)
        self.findings = tuple(findings)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.fix})" if self.fix else text

    def to_dict(self) -> dict[str, Any]:
        """The `error` object of `--json`."""
        facts = {"message": self.message, "where": self.where, "fix": self.fix}
        return {**facts, "findings": [dict(found) for found in self.findings]} if self.findings else facts


class OtherRankError(SaccadeError):
    """Another process of the run has failed and has said why; this one ends with it, without a word."""

    exit_code = 2


class Interrupted(SaccadeError):
    """The user stopped the work by a signal; what was done is saved (exit code 130 for SIGINT, 143 for SIGTERM)."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def one_line(text: str) -> str:
    """`text` with line breaks and control characters replaced, so that an error never spans two lines."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def nearest(word: str, choices: Iterable[str], n: int = 5) -> list[str]:
    """The up to `n` choices most like `word`, best first."""
    import difflib  # 13 ms that only a typo should cost

    pool = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), pool, n, cutoff=0.4)
    return [pool[key] for key in close]


def unknown(kind: str, word: str, choices: Iterable[str], *, where: str = "") -> UserError:
    """The error for a name that is not among `choices`; it suggests the nearest ones."""
    choices = list(choices)
    close = nearest(word, choices) or sorted(choices)[:5]
    fix = f"did you mean {', '.join(close)}?" if close else ""
    return UserError(f"unknown {kind} {word!r}", where=where, fix=fix)
