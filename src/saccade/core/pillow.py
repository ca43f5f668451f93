"""What makes Pillow safe to read anybody's files with, from several threads: its warnings silenced, its many exceptions made one."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import warnings
from types import TracebackType

from PIL import Image

from saccade.core.errors import UserError

TOO_LARGE = "raise max_pixels (--max-pixels) if you trust it"


def silence_libtiff() -> None:
    """libtiff prints a line per fault on standard error from C (hundreds for one bad file), Pillow's reader of TIFF logs some; the faults
    reach us as exceptions as well."""
    from PIL import _imaging

    logging.getLogger("PIL.TiffImagePlugin").addFilter(_not_here)
    try:
        library = ctypes.CDLL(_imaging.__file__)  # its symbols include those of the libtiff it is linked to
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (AttributeError, OSError):  # a Pillow without libtiff, or with one linked out of reach: the lines stay
        return


class _Thread(threading.local):
    reading = False


_THREAD = _Thread()


def _not_here(record: logging.LogRecord) -> bool:
    """Whether a line of a log is of somebody else's use of Pillow."""
    return not _THREAD.reading


class _OnlyHere(type):
    """A category of warnings to which all belong in a thread that is reading, and none elsewhere.

    `warnings.catch_warnings` changes the filters of all threads, and restores them wrongly when threads overlap;
    one filter of this category stays in place and touches neither other threads nor the user's own use of Pillow.
    """

    def __subclasscheck__(cls, category: type) -> bool:
        return _THREAD.reading


class _PillowWarning(Warning, metaclass=_OnlyHere):
    pass


class Decoding:
    """Silences Pillow's warnings in this thread, and turns whatever it raises for a bad file into one UserError."""

    __slots__ = ("before", "where")

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        if not warnings.filters or warnings.filters[0][2] is not _PillowWarning:
            warnings.simplefilter("ignore", _PillowWarning)
        self.before = _THREAD.reading
        _THREAD.reading = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _THREAD.reading = self.before
        # Pillow answers damaged files with OSError, SyntaxError, ValueError, TypeError, struct.error, zlib.error and more: no list holds.
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> UserError:
        if isinstance(error, Image.DecompressionBombError):
            count = re.search(r"\d+", str(error))
            message = f"has too many pixels: its header claims {int(count[0]):,}" if count else "has too many pixels"
            return UserError(message, where=self.where, fix=TOO_LARGE)
        if isinstance(error, MemoryError):
            return UserError("needs more memory to decode than there is", where=self.where)
        if isinstance(error, OSError) and error.errno is not None:
            return UserError(f"cannot be read: {error.strerror or error}", where=self.where)
        reason = str(error)[:200] or type(error).__name__
        return UserError(f"is damaged or cut short: {reason}", where=self.where, fix="replace it or leave it out")
