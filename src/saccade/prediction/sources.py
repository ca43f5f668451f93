"""From what a user gives (paths, folders, globs, standard input, arrays, pictures) to a list of single images."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.core import images, video
from saccade.core.errors import UserError
from saccade.core.files import os_error
from saccade.core.images import MAX_PIXELS, SUFFIXES, Picture
from saccade.core.moment import Moment


@dataclass(frozen=True, slots=True)
class Source:
    """One image to come: `content` is what `core.images.read` takes; `name` stands in results. moment: of a frame, where in its video;
    fault: why there is none."""

    content: Any
    name: str
    moment: Moment | None = None
    fault: UserError | None = None

    def read(self, channels: int, max_pixels: int, covering: tuple[int, int] | None) -> Picture:
        """As `core.images.read`."""
        if self.fault is not None:
            raise self.fault
        return images.read(self.content, channels=channels, max_pixels=max_pixels, covering=covering)


def expand(inputs: Any) -> Iterator[Source]:
    """Any one input, or a list of inputs, in order; a folder gives its images, sorted, with those of its folders.

    Folders are read as they are come to: no more than the names in one of them are held. Raises UserError for one that may not be read.
    """
    many = inputs if isinstance(inputs, list | tuple | Iterator) else [inputs]
    return (source for number, item in enumerate(many) for source in _one(item, number))


def count(inputs: Any) -> int | None:
    """How many images, and frames of videos, `expand` and `each_frame` will give; None where asking would use them up (an iterator), or a
    video does not tell."""
    if isinstance(inputs, Iterator):
        return None
    total = 0
    for source in expand([_unread(item) for item in _listed(inputs)]):
        found = video.length(source.content) if _is_video(source) else 1
        if found is None:
            return None
        total += found
    return total


def has_video(inputs: Any) -> bool:
    """Whether some of the inputs are videos, by their names. A folder gives its images only."""
    items = () if isinstance(inputs, Iterator) else _listed(inputs)
    paths = (os.fspath(item) for item in items if isinstance(item, str | os.PathLike))
    return any(_is_video(source) for path in paths if not os.path.isdir(path) and path != "-" for source in _path(path))


def each_frame(sources: Iterable[Source], max_pixels: int = MAX_PIXELS) -> Iterator[Source]:
    """The sources, of a video one for each frame: `clip.mp4#0` ..., decoded as they are asked for. What is wrong with it is one more
    source, with that as its fault. Raises UserError where what reads videos is not installed."""
    for source in sources:
        if not _is_video(source):
            yield source
            continue
        video.require()
        last: Moment | None = None
        try:
            for last, pixels in video.frames(source.content, max_pixels=max_pixels):
                yield Source(pixels, f"{source.name}#{last.frame}", last)
        except UserError as error:
            after = None if last is None else Moment(last.frame + 1, last.time)
            yield Source(None, source.name if after is None else f"{source.name}#{after.frame}", after, error)


def _is_video(source: Source) -> bool:
    return isinstance(source.content, str) and video.is_video(source.content)


def _listed(inputs: Any) -> Iterable[Any]:
    return inputs if isinstance(inputs, list | tuple) else [inputs]


def _unread(item: Any) -> Any:
    """Standard input can be read once, and is one image."""
    return b"" if isinstance(item, str) and item == "-" else item


def _one(item: Any, number: int) -> Iterable[Source]:
    if isinstance(item, str | os.PathLike):
        yield from _path(os.fspath(item))
    elif getattr(item, "ndim", 0) == 4:
        yield from (Source(image, f"input {number}[{i}]") for i, image in enumerate(item))
    else:
        name = getattr(item, "filename", "") if not isinstance(item, np.ndarray) else ""
        yield Source(item, os.fsdecode(name) if name else f"input {number}")


def _path(text: str) -> Iterable[Source]:
    if text == "-":
        yield Source(sys.stdin.buffer.read(), "-")
    elif os.path.isdir(text):
        yield from (Source(path, str(path)) for path in _images(Path(text)))
    elif not os.path.exists(text) and glob.has_magic(text) and (found := sorted(glob.glob(text, recursive=True))):
        for path in found:
            yield from _path(path)
    else:
        yield Source(text, text)


def _images(folder: Path) -> Iterator[Path]:
    """Sorted by the parts of their paths. Links to images are followed, links to folders are not; hidden names are passed over."""
    waiting = [_entries(folder)]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry[1]:
            waiting.append(_entries(entry[0]))
        else:
            yield entry[0]


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The folders (True) and images (False) in a folder, by name."""
    try:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder) if entry.name[0] != ".")
    except OSError as error:
        raise os_error(error, folder, "list the folder") from None
    return iter([(folder / name, inner) for name, inner in found if inner or os.path.splitext(name)[1].lower() in SUFFIXES])
