"""Videos, frame by frame, in bounded memory, by PyAV (the extra "video"), which is loaded when a video is.

Read are local files of FORMATS only, opened here and handed over open: no list of other files, no address is ever followed. Written is
VP9 in WebM (libvpx), which browsers play and nobody asks a fee for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.core import files
from saccade.core.errors import UserError, one_line
from saccade.core.growing import Growing
from saccade.core.images import MAX_PIXELS, check_pixels
from saccade.core.moment import Moment

SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv")
)
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"  # as FFmpeg calls what it may take such a file for
SHORT = 2.0  # seconds that may be missing at the end: what a video says of its length is not exact
TICKS = 1000  # a second, as WebM counts
ENCODER = "libvpx-vp9"
BT709 = 1  # the colours of high definition, as FFmpeg counts them
ENCODING = {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "30", "b": "0"}


def is_video(path: str | os.PathLike[str]) -> bool:
    """By the name alone."""
    return os.path.splitext(os.fspath(path))[1].lower() in SUFFIXES


def require() -> Any:
    """PyAV; raises the one line that says what to install where it is missing."""
    try:
        import av
    except ImportError:
        raise UserError("videos need the package av, which is not installed", fix="pip install 'saccade[video]'") from None
    return av


def frames(path: str, *, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Moment, NDArray[np.uint8]]]:
    """Each frame, upright, as uint8 RGB `[H, W, 3]`, in the order shown.

    Raises UserError at once for a file that is no video, holds none, or has larger frames than `max_pixels`; after the frames that there
    are where some are damaged.
    """
    number, first, time = 0, 0.0, 0.0
    with _opened(path) as (container, stream):
        check_pixels((stream.codec_context.width, stream.codec_context.height), path, max_pixels)
        stream.codec_context.options = {"max_pixels": str(max_pixels)}  # the size may change on the way
        stream.thread_type = "AUTO"
        for frame in _decoded(container, stream, path):
            time = frame.time if frame.time is not None else number / float(stream.average_rate or 25)
            first = first if number else time
            yield Moment(number, round(time - first, 6)), _upright(frame)
            number += 1
        if not number:
            raise UserError("holds no frame that can be decoded", where=path)
        if (told := _seconds(container, stream)) > time + SHORT:
            raise UserError(f"ends after {time:.1f} of {told:.1f} seconds: the rest is missing or damaged", where=path)


def _seconds(container: Any, stream: Any) -> float:
    """How long a video says that it is; 0 where it does not, or where sound may go on after it."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else 0.0


def length(path: str) -> int | None:
    """How many frames a video says that it has; None where it does not say, or cannot be read."""
    try:
        with _opened(path) as (container, stream):
            if stream.frames or not (container.duration and stream.average_rate):
                return stream.frames or None
            return round(container.duration / 1e6 * stream.average_rate) or None
    except UserError:
        return None


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The open container and its first video stream."""
    av = require()
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below
    except FileNotFoundError:
        raise UserError("no such file", where=path) from None
    except OSError as error:
        raise files.os_error(error, Path(path), "read") from None
    with file:
        try:
            container = av.open(file, "r", container_options={"format_whitelist": FORMATS}, metadata_errors="replace")
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise UserError(f"is no video, or is damaged: {_reason(error)}", where=path) from None
        with container:
            if not container.streams.video:
                held = ", ".join(sorted({stream.type for stream in container.streams}))
                said = f"must hold a video stream, holds {held}" if held else "is no video, or is damaged: there is no stream in it"
                raise UserError(said, where=path)
            yield container, container.streams.video[0]


def _decoded(container: Any, stream: Any, path: str) -> Iterator[Any]:
    """Frames as they can be decoded; raises UserError after the last one where some could not, or not well."""
    error_type = require().error.FFmpegError
    damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (error_type, OSError) as error:
            raise UserError(f"cannot be read on: {_reason(error)}", where=path) from None
        if packet is None:
            break
        try:
            found = packet.decode()
        except error_type:
            damaged += 1
            continue
        damaged += sum(frame.is_corrupt for frame in found)
        yield from found
    if damaged:
        raise UserError(f"{damaged:,} of its frames are damaged or missing", where=path)


def _reason(error: Exception) -> str:
    return one_line(str(getattr(error, "strerror", None) or error)).lower()


def _upright(frame: Any) -> NDArray[np.uint8]:
    """The pixels as the file says that they are to be shown: turned by multiples of 90 degrees (a phone held upright)."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))  # both count counterclockwise


class Recorder(Growing):
    """A WebM file that grows as pictures come; what ends it before leaves one that can be played. All get the size of the first one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._av = require()
        self._stream: Any = None
        self._size, self._last, self._broken = (0, 0), -1, False

    def add(self, picture: NDArray[np.uint8], time: float) -> None:
        """One more picture, uint8 `[H, W, 3]`, shown from `time` (seconds) on."""
        if self._stream is None:
            self._size = (picture.shape[0], picture.shape[1])
            self._stream = self._started()
        frame = self._av.VideoFrame.from_ndarray(_placed(picture, self._size), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts = self._last = max(self._last + 1, round(time * TICKS))
        frame.time_base = Fraction(1, TICKS)
        self._mux(self._stream.encode(frame))
        self.written += 1

    def _started(self) -> Any:
        self._container = self._av.open(self.file, "w", format="webm")
        try:
            stream = self._container.add_stream(ENCODER, options=ENCODING)
        except (self._av.error.FFmpegError, ValueError):
            fix = "install av from PyPI's wheels, or build it with libvpx"
            raise UserError(f"this build of PyAV cannot write VP9 ({ENCODER})", fix=fix) from None
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        coder = stream.codec_context
        coder.time_base = Fraction(1, TICKS)
        coder.colorspace = coder.color_primaries = coder.color_trc = BT709
        return stream

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except OSError as error:
            self._broken = True  # nothing more goes in
            raise files.os_error(error, self.partial) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._stream is not None and not self._broken:
                self._mux(self._stream.encode())
                self._container.close()
        finally:
            super().__exit__(kind, error, trace)


def _placed(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture at the top left of a white page of (height, width), reduced where it would not fit."""
    if picture.shape[:2] == size:
        return np.ascontiguousarray(picture)
    page, image = Image.new("RGB", size[::-1], "white"), Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail(size[::-1])
    page.paste(image)
    return np.asarray(page)
