"""Work that may fail while the run goes on: an edit, a setting, a request. What one process cannot do, all of them leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from saccade.core.errors import SaccadeError, UserError
from saccade.training.ranks import Ranks
from saccade.training.step import is_memory

T = TypeVar("T")


def agreed(ranks: Ranks, work: Callable[[], T], *, where: str) -> T:
    """What each process finds by itself, without waiting for another in `work`. Where one of them fails, for whatever reason, UserError
    is raised on all of them, before any of them goes on."""
    failed: Exception | None = None
    try:
        found = work()
    except Exception as error:
        if lost(error):
            raise
        failed = error.with_traceback(None)  # which holds what the work had made, a second network say
        failed.__context__ = None
    why = ranks.fault("" if failed is None else said(failed))
    if not why:
        return found
    if isinstance(failed, UserError):
        raise failed
    raise UserError(why, where=where) from failed


def tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it gives, or the error of a user, or of a network or a request that nothing here was made for: none of them may end a run."""
    try:
        return work()
    except UserError as error:
        return {"error": {"message": error.message, "where": error.where, "fix": error.fix}}
    except Exception as error:
        if lost(error):
            raise
        return {"error": {"message": said(error), "where": "", "fix": ""}}


def said(error: Exception) -> str:
    """An error in one line."""
    if is_memory(error):
        return "there is not enough memory for it"
    return str(error) if isinstance(error, UserError) else f"cannot be done: {type(error).__name__}: {str(error)[:300]}"


def lost(error: Exception) -> bool:
    """Whether another process of the run has gone, so that nothing can be agreed on."""
    return isinstance(error, SaccadeError) and not isinstance(error, UserError)
