"""Videos: frames as they are shown, when, upright; what is no video; what is written."""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from saccade.core import video
from saccade.core.errors import UserError
from saccade.core.moment import Moment
from saccade.core.video import Recorder, frames, length

TIMES = [0.0, 0.04, 0.1, 0.5, 0.52]  # no even rate


def corners(height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """Red at the top left, green at the top right, blue at the bottom left, grey at the bottom right."""
    page = np.full((height, width, 3), 128, np.uint8)
    page[: height // 2, : width // 2] = (220, 30, 30)
    page[: height // 2, width // 2 :] = (30, 200, 30)
    page[height // 2 :, : width // 2] = (30, 30, 220)
    return page


def written(path: Path, pictures: list[Any], times: list[float], codec: str = "mpeg4", **options: Any) -> Path:
    """By PyAV itself, in the format of the suffix."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for picture, time in zip(pictures, times, strict=True):
            frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame: Any = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.MOV"])
def test_frames_come_in_order_with_their_own_times(tmp_path: Path, name: str) -> None:
    pictures = [np.full((48, 64, 3), 40 * number, np.uint8) for number in range(5)]
    path = written(tmp_path / name, pictures, [3 + time for time in TIMES])
    assert video.is_video(path)
    found = list(frames(str(path)))
    assert [moment.frame for moment, _ in found] == [0, 1, 2, 3, 4]
    assert [moment.time for moment, _ in found] == TIMES
    for picture, (_, pixels) in zip(pictures, found, strict=True):
        assert pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - picture).max() <= 8


# The matrix of a track (ISO 14496-12, 8.3.2) maps (x, y) to (a x + c y, b x + d y), y down; where the corners come to lie.
TURNS = {
    "a phone held upright": ((0, 1, -1, 0), ["blue", "red", "grey", "green"]),
    "upside down": ((-1, 0, 0, -1), ["grey", "blue", "green", "red"]),
    "to the other side": ((0, -1, 1, 0), ["green", "grey", "red", "blue"]),
}


@pytest.mark.parametrize(("matrix", "expected"), TURNS.values(), ids=TURNS)
def test_rotation_is_taken_from_the_file(tmp_path: Path, matrix: tuple[int, ...], expected: list[str]) -> None:
    path = written(tmp_path / "a.mp4", [corners()] * 2, [0, 0.04])
    data = path.read_bytes()
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(plain, data.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in matrix)
    path.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :])
    _, pixels = next(frames(str(path)))
    assert pixels.shape == ((64, 48, 3) if matrix[0] == 0 else (48, 64, 3))
    colours = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128, 128, 128)}
    height, width = pixels.shape[:2]
    for name, (y, x) in zip(expected, [(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)], strict=True):
        assert np.abs(pixels[int(y * height), int(x * width)].astype(int) - colours[name]).max() < 12, name


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("text.mp4", b"no video", "is no video, or is damaged"),
        ("empty.mkv", b"", "is no video, or is damaged"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "is no video, or is damaged"),
        ("concat.mp4", b"ffconcat version 1.0\nfile 'other.mp4'\n", "is no video, or is damaged"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path: Path, name: str, data: bytes, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Lists of other files are no videos: none of those is opened."""
    written(tmp_path / "other.mp4", [corners()], [0])
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        list(frames(str(tmp_path / name)))
    assert str(caught.value).startswith(f"{tmp_path / name}: {said}")
    assert length(str(tmp_path / name)) is None
    assert capfd.readouterr() == ("", ""), "FFmpeg says nothing by itself"


def test_a_file_cut_short_and_others_that_hold_no_pictures(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.mp4", [corners()] * 20, [number / 25 for number in range(20)])
    for cut in (200, 4000):  # the index stands at the end
        whole.write_bytes(whole.read_bytes()[:-cut])
        with pytest.raises(UserError, match="is no video, or is damaged"):
            list(frames(str(whole)))
    with pytest.raises(UserError, match="must hold a video stream, holds audio"):
        list(frames(str(sound(tmp_path / "sound.mkv"))))
    with pytest.raises(UserError, match="no such file"):
        list(frames(str(tmp_path / "none.mp4")))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match="cannot read: is a directory"):
        list(frames(str(tmp_path / "folder.mp4")))


def until_it_fails(path: Path) -> tuple[list[Moment], str]:
    """What came before the error, and the error."""
    found = []
    try:
        for moment, _ in frames(str(path)):
            found.append(moment)
    except UserError as error:
        return found, str(error)
    return found, ""


def test_damage_in_the_middle_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    pictures = [draws.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(30)]
    path = written(tmp_path / "a.mkv", pictures, [number / 25 for number in range(30)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 60] = bytes(60)
    path.write_bytes(data)
    found, said = until_it_fails(path)
    assert re.fullmatch(r".*a.mkv: \d of its frames are damaged or missing", said)
    assert 25 <= len(found) <= 30
    assert found[-1].time == 29 / 25, "those after the damage are there"


def test_a_download_that_was_cut_off_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mkv", [corners()] * 200, [number / 25 for number in range(200)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found, said = until_it_fails(path)
    assert re.fullmatch(r".*ends after \d.\d of 8.0 seconds: the rest is missing or damaged", said)
    assert len(found) > 50


def test_large_frames_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", [corners()], [0])
    with pytest.raises(UserError, match=r"must have at most 3,000 pixels, but has 3,072 \(height 48, width 64\)"):
        list(frames(str(path), max_pixels=3000))


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"videos need the package av, which is not installed \(pip install 'saccade\[video\]'\)"):
        list(frames(str(tmp_path / "a.mp4")))
    assert length(str(tmp_path / "a.mp4")) is None


# Writing


@pytest.mark.parametrize("size", [(48, 64), (11, 17), (1, 1), (2, 301)])
def test_what_is_recorded_is_what_was_shown_and_when(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), (200, 40, 90), np.uint8)
    with Recorder(tmp_path / "a.webm") as recorder:
        for time in TIMES:
            recorder.add(picture, time)
            assert not (tmp_path / "a.webm").exists()
    assert os.listdir(tmp_path) == ["a.webm"]
    found = list(frames(str(tmp_path / "a.webm")))
    assert [moment.time for moment, _ in found] == TIMES
    assert all(np.abs(pixels.astype(int) - picture).max() <= 4 for _, pixels in found)


def test_pictures_of_another_size_are_placed_on_the_first_ones_page(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.webm") as recorder:
        recorder.add(corners(48, 64), 0)
        recorder.add(corners(40, 64), 0.1)
        recorder.add(corners(96, 64), 0.1)  # at the same time: a tick later
    (_, first), (_, lower), (last, higher) = frames(str(tmp_path / "a.webm"))
    assert first.shape == lower.shape == higher.shape == (48, 64, 3)
    assert lower[46, 30].min() > 240 and higher[20, 60].min() > 240, "white beside it"
    assert np.abs(higher[36, 8].astype(int) - (30, 30, 220)).max() < 12, "reduced whole"
    assert last.time == 0.101


def test_what_ends_it_leaves_what_can_be_played(tmp_path: Path) -> None:
    def stopped() -> None:
        with Recorder(tmp_path / "a.webm") as recorder:
            recorder.add(corners(), 0)
            recorder.add(corners(), 0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert os.listdir(tmp_path) == ["a.webm.partial"]
    assert len(list(frames(str(tmp_path / "a.webm.partial")))) == 2
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path / "b.webm"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.webm.partial"], "nothing was in it"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Any:
            return self.file.__enter__()

        def __exit__(self, *args: Any) -> Any:
            return self.file.__exit__(*args)

    draws = np.random.default_rng(0)

    def fill() -> None:
        with Recorder(tmp_path / "a.webm") as recorder:
            recorder.file = Full(recorder.file)  # type: ignore[assignment]
            for number in range(40):
                recorder.add(draws.integers(0, 255, (200, 300, 3)).astype(np.uint8), number / 25)

    with pytest.raises(UserError, match="no space left on device"):
        fill()
