"""What makes Pillow safe: one error for its many, and its warnings silenced where and while a file is read, nowhere else."""

from __future__ import annotations

import errno
import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from saccade.core import images
from saccade.core.errors import UserError
from saccade.core.pillow import TOO_LARGE, Decoding, silence_libtiff

BAD = [
    OSError("broken data stream"),
    SyntaxError("not a TIFF file"),
    ValueError("bad\nvalue\x1b[31m"),
    TypeError("bad type"),
    KeyError(5),
    IndexError("list index out of range"),
    struct.error("unpack requires a buffer"),
    zlib.error("Error -3"),
    EOFError(),
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("x" * 5000),
    UnidentifiedImageError("cannot identify"),
    AttributeError("'NoneType'"),
    NotImplementedError(),
    AssertionError(),
]


@pytest.mark.parametrize("error", BAD, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_for_a_bad_file_is_one_line(error: Exception) -> None:
    with pytest.raises(UserError, match="is damaged or cut short") as caught, Decoding("a.png"):
        raise error
    assert (caught.value.where, caught.value.fix) == ("a.png", "replace it or leave it out")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_errors_with_words_of_their_own() -> None:
    bomb = Image.DecompressionBombError("Image size (3600000000 pixels) exceeds limit of 178956970 pixels")
    for error, words, fix in [
        (bomb, "its header claims 3,600,000,000", TOO_LARGE),
        (Image.DecompressionBombError("too large"), "has too many pixels", TOO_LARGE),
        (MemoryError(), "needs more memory", ""),
        (OSError(errno.EIO, "Input/output error"), "cannot be read: Input/output error", ""),
        (OSError(errno.EIO, None), "cannot be read", ""),
    ]:
        with pytest.raises(UserError, match=words) as caught, Decoding("a.png"):
            raise error
        assert caught.value.fix == fix


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), UserError("ours", where="b")])
def test_what_is_no_bad_file_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, Decoding("a.png"):
        raise error
    assert caught.value is error


def warn() -> None:
    for category in (UserWarning, DeprecationWarning, RuntimeWarning, Image.DecompressionBombWarning, ResourceWarning):
        warnings.warn("noise", category, stacklevel=2)


def warn_and_fail() -> None:
    with Decoding("c"):
        warn()
        raise ValueError


def test_warnings_are_silent_inside_and_the_users_own_outside() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn()
        assert len(caught) == 5
        with Decoding("a"):
            warn()
            with Decoding("b"):
                warn()
            warn()
        with pytest.raises(UserError):
            warn_and_fail()
        assert len(caught) == 5
        warn()
        assert len(caught) == 10


def test_warnings_made_errors_are_errors_outside_only() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Decoding("a"):
            warn()
        with pytest.raises(UserWarning, match="noise"):
            warn()


def test_filters_do_not_grow_and_come_again_when_the_user_takes_them_away() -> None:
    with warnings.catch_warnings():
        with Decoding("a"):
            pass
        before = len(warnings.filters)
        for _ in range(50):
            with Decoding("a"):
                pass
        assert len(warnings.filters) == before
        warnings.resetwarnings()
        warnings.simplefilter("error")
        with Decoding("a"):
            warn()


def test_a_thread_that_reads_silences_no_other() -> None:
    inside, told = threading.Event(), threading.Event()
    heard: list[str] = []

    def read() -> None:
        with Decoding("a"):
            inside.set()
            assert told.wait(10)
            warn()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = warnings.showwarning
        warnings.showwarning = lambda message, *rest, **options: heard.append(str(message))  # type: ignore[assignment]
        try:
            thread = threading.Thread(target=read)
            thread.start()
            assert inside.wait(10)
            warn()
            assert len(heard) == 5
            told.set()
            thread.join()
            assert len(heard) == 5
            warn()
            assert len(heard) == 10
        finally:
            warnings.showwarning = before


def test_threads_that_overlap_leave_nothing_behind() -> None:
    """Entered and left in no order, as threads do: the mark belongs to each of them alone."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "PNG")
    wrong: list[str] = []

    def read(number: int) -> None:
        for turn in range(60):
            try:
                images.read(file.getvalue() if (number + turn) % 3 else b"\x89PNG\r\n\x1a\nno")
            except UserError:
                continue
            except BaseException as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn()
    assert len(caught) == 5


def test_libtiff_says_nothing_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        silence_libtiff()
    path = tmp_path / "x.tif"
    Image.effect_noise((200, 200), 90).save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    for place in range(300, len(data) - 300, 97):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError):
        images.read(path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_pillow_without_libtiff_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.core import pillow

    class Without:
        def __init__(self, path: str) -> None:
            if not path:
                raise OSError("no such library")

    monkeypatch.setattr(pillow.ctypes, "CDLL", Without)
    silence_libtiff()
    monkeypatch.setattr("PIL._imaging.__file__", "")
    silence_libtiff()
