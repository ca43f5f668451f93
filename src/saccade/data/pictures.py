"""The images of a tree, found by what an annotation file calls them: one listing, then look-ups."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable
from functools import cached_property

from saccade.data.annotations import Item
from saccade.data.tree import File, Tree

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}
_WORDS = re.compile(r"[^a-z]+")


def split_of(path: str) -> str:
    """The split that a path names by a word of its own (`train2017`, `instances_val.json`): of the last part that names just one."""
    for part in reversed(path.lower().split("/")):
        found = {SPLITS[word] for word in _WORDS.split(part) if word in SPLITS}
        if len(found) == 1:
            return found.pop()
    return ""


def stem(path: str) -> str:
    """A path without its suffix."""
    head, dot, ending = path.rpartition(".")
    return head if dot and "/" not in ending and head.rpartition("/")[2].strip(".") else path


class Pictures:
    """All files of a tree, and its images by path; apart: folders whose pictures are no images."""

    def __init__(self, tree: Tree, apart: Collection[str] = ()) -> None:
        files = tree.files("", deep=True)
        self.files = [file for file in files if posixpath.dirname(file.path) not in apart] if apart else files

    @cached_property
    def images(self) -> dict[str, File]:
        """By path."""
        return {file.path: file for file in self.files if file.is_image}

    def passed_over(self, *read: str) -> int:
        """How many files are no images, and not among those of these paths, which a reader took names or splits from."""
        return sum(not file.is_image and file.path not in read for file in self.files)

    def find(self, name: str, folders: Iterable[str], split: str = "") -> File | None:
        """The image that an annotation calls `name`: in one of the folders, in this order, else the only one whose path ends so.

        A path of another machine, absolute or with backslashes, is found by its end, a name in other case by its letters. Of a known
        `split` no image is taken from the folder of another one: names often repeat from split to split.
        """
        name = name if name in self.images or "\\" not in name else name.replace("\\", "/")
        for folder in folders:
            if found := self.images.get(posixpath.normpath(f"{folder}/{name}").lstrip("/")):
                return found
        parts = [part for part in name.lower().split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        wanted = split or split_of(posixpath.dirname(name))
        places = [place for place in self._by_name.get(parts[-1], []) if not wanted or split_of(posixpath.dirname(place)) in ("", wanted)]
        for depth in range(len(parts), 1, -1):
            ending = "/" + "/".join(parts[-depth:])
            if len(fitting := [place for place in places if f"/{place.lower()}".endswith(ending)]) == 1:
                return self.images[fitting[0]]
        return self.images[places[0]] if len(places) == 1 else None

    def beside(self, path: str, folders: Iterable[str]) -> File | None:
        """The image in one of the folders whose name is that of `path` but for the suffix."""
        own = posixpath.basename(stem(path))
        for folder in folders:
            if found := self._by_stem.get(posixpath.join(folder, own)):
                return self.images[found]
        return None

    def of_stem(self, path: str) -> File | None:
        """The only image anywhere whose name is that of `path` but for the suffix."""
        places = self._by_own_stem.get(posixpath.basename(stem(path)), [])
        return self.images[places[0]] if len(places) == 1 else None

    def unnamed(self, items: Iterable[Item]) -> tuple[str, ...]:
        """A note on the images that no annotation names, if there are any."""
        count = len(self.images.keys() - {item.path for item in items})
        return (f"{count:,} images without an annotation file that names them are left out",) if count else ()

    def folders(self, split: str) -> list[str]:
        """Folders of images whose own name is that of the split, few of them: those next to the root."""
        found = [path for path in self._folders if split and split_of(posixpath.basename(path)) == split]
        return sorted(found, key=lambda path: (path.count("/"), path))[:8]

    @cached_property
    def paths(self) -> frozenset[str]:
        """Of all files."""
        return frozenset(file.path for file in self.files)

    @cached_property
    def places(self) -> frozenset[str]:
        """All folders that hold an image somewhere below them, the root ("") among them."""
        found = {""}
        for folder in self._folders:
            while folder not in found:
                found.add(folder)
                folder = posixpath.dirname(folder)
        return frozenset(found)

    @cached_property
    def _folders(self) -> set[str]:
        return {posixpath.dirname(path) for path in self.images}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped((posixpath.basename(path).lower(), path) for path in self.images)

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {stem(path): path for path in reversed(self.images)}

    @cached_property
    def _by_own_stem(self) -> dict[str, list[str]]:
        return _grouped((posixpath.basename(stem(path)), path) for path in self.images)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
