"""What the headers of masks tell before one is decoded: whether it is there, is a picture, and has the size of its image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from saccade.core import images
from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.core.run_lengths import Rle
from saccade.data.annotations import Annotations, Item, Object, Picture
from saccade.data.doctor.flat import Size, of_object
from saccade.data.findings import Finding

Fault: TypeAlias = tuple[str, str]  # code, message


def check(annotations: Annotations, progress: Progress, workers: int) -> Iterator[Finding]:
    """Findings on masks of classes and of objects; an image whose header cannot be read is named when it is decoded."""
    items = [item for item in annotations.items if has_masks(item)]
    if not items:
        return
    progress.start("looking at the sizes of masks", len(items), "images")
    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(lambda item: list(_masks(annotations, item)), items):
            progress.advance()
            yield from found
    progress.finish()


def has_masks(item: Item) -> bool:
    """Whether an image has masks other than outlines."""
    return bool(item.mask) or any(isinstance(one.shape, Rle | Picture) for one in item.objects)


def unequal(mask: tuple[int, ...], size: Size) -> str:
    """How a mask's size and its image's are told."""
    return f"the mask is {mask[0]}x{mask[1]} (height x width), its image {size[0]}x{size[1]}"


def _masks(annotations: Annotations, item: Item) -> Iterator[Finding]:
    pictures = [item.mask] * bool(item.mask) + [one.shape.path for one in item.objects if isinstance(one.shape, Picture)]
    # Run lengths are measured against the stated size, so that a set of them is not read once for that.
    size = item.size if item.size and not pictures else _image_size(annotations, item)
    found = {path: _fault(annotations, path, size) for path in dict.fromkeys(pictures)}
    if item.mask and (fault := found[item.mask]):
        yield Finding(fault[0], item.mask, fault[1])
    for place, one in enumerate(item.objects):
        if fault := _of_shape(one, found, size):
            yield of_object(fault[0], item, one, place, fault[1])


def _of_shape(one: Object, found: Mapping[str, Fault | None], size: Size | None) -> Fault | None:
    if isinstance(one.shape, Picture):
        fault = found[one.shape.path]
        return (fault[0], f"{one.shape.path}: {fault[1]}") if fault else None
    if isinstance(one.shape, Rle) and size and one.shape.size != size:
        return "mask-size", unequal(one.shape.size, size)
    return None


def _fault(annotations: Annotations, path: str, size: Size | None) -> Fault | None:
    """What is wrong with a mask's picture; its EXIF orientation counts for nothing, as in `masks.read`."""
    try:
        if annotations.tree.find(path) is None:
            return "missing-mask", "the mask is not there"
        with images.opened(annotations.tree.image(path)) as (image, _):
            width, height = image.size
    except UserError as error:
        return "missing-mask", f"the mask cannot be read: {error.message}"
    return ("mask-size", unequal((height, width), size)) if size and (height, width) != size else None


def _image_size(annotations: Annotations, item: Item) -> Size | None:
    try:
        return images.probe(annotations.tree.image(item.path)).size
    except UserError:
        return None
