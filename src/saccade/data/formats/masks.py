"""Images and masks of classes in folders beside each other: `images/` and `masks/` (and the like), splits inside or outside of them.

A mask is a picture of the image's size whose pixels name classes: by an index (grey or palette), by black and white, or by colours. Which
value is which class stands in a legend, a file at the root or beside the masks:

- `classes.txt`: line n is the class of index n - 1 (this is what `write` makes);
- `labelmap.txt`: `name:r,g,b::`, as CVAT and VOC exports have it;
- `class_dict.csv`, `classes.csv`, `legend.csv`: columns name and r, g, b, or name and value;
- `classes.json`: a list of names, or {value: name}, or {name: [r, g, b]}.

Without one, the masks themselves are looked at and classes are called by their values; 255 counts in no loss or metric (as VOC's void),
unless masks are black and white, with tones between where they are JPEG or were scaled (light ones are white then), or grey tones. Two
names in a legend may be those of black and white too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from saccade.core import class_masks
from saccade.core.errors import UserError
from saccade.data import legends, reading, shapes
from saccade.data.annotations import Annotations, Item
from saccade.data.findings import Finding
from saccade.data.pictures import Pictures, split_of, stem
from saccade.data.tree import File, Tree
from saccade.data.writing import Output

TASKS = ("segment",)
HOLDS = frozenset({"pixel classes", "splits"})
IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "pngimages", "photos", "input", "inputs"})
MASKS = frozenset(
    {"masks", "mask", "labels", "label", "annotations", "segmentationclass", "segmentationclassraw", "gt", "gtfine", "groundtruth",
     "ground_truth", "segmentation", "segmentations", "labelids", "targets"}
)  # fmt: skip
_MASK_SUFFIX = re.compile(r"(_gtfine)?[_-](mask|masks|gt|label|labels|labelids|segmentation|seg|l)$", re.IGNORECASE)
_IMAGE_SUFFIX = re.compile(r"[_-](leftimg8bit|image|img)$", re.IGNORECASE)
_LIST = re.compile(r"(?:(.*)/)?ImageSets/Segmentation/(train|val|test)\.txt")
_EXPECTED = "expected images/ and masks/ with pictures of the same names"


def fits(tree: Tree) -> tuple[str, ...]:
    """Segmentation, where some image has a mask of its name in a folder of masks."""
    images, found = _kinds(Pictures(tree))
    return TASKS if images.keys() & found.keys() else ()


def _kinds(pictures: Pictures) -> tuple[dict[str, File], dict[str, File]]:
    """Images and masks by what they have in common: the path without the folder that tells them apart, and without endings of their own."""
    images: dict[str, File] = {}
    found: dict[str, File] = {}
    known: dict[str, list[set[str]]] = {}
    for path, file in pictures.images.items():
        folder = path.rpartition("/")[0]
        if folder not in known:
            known[folder] = [set(re.split(r"[-. ]", part.lower())) for part in folder.split("/")]
        words = known[folder]
        if not any(own & MASKS or own & IMAGES for own in words):
            continue
        parts = stem(path).split("/")
        if places := [place for place, own in enumerate(words) if own & MASKS]:
            found.setdefault(_key(parts, places[-1], _MASK_SUFFIX), file)
        elif places := [place for place, own in enumerate(words) if own & IMAGES]:
            images.setdefault(_key(parts, places[-1], _IMAGE_SUFFIX), file)
    return images, found


def _key(parts: Sequence[str], place: int, ending: re.Pattern[str]) -> str:
    return "/".join([*parts[:place], *parts[place + 1 : -1], ending.sub("", parts[-1])])


def read(tree: Tree, task: str) -> Annotations:
    """Raises UserError where no image has a mask, or where the masks hold more values than classes could be."""
    pictures = Pictures(tree)
    images, found = _kinds(pictures)
    pairs = sorted(images.keys() & found.keys())
    if not pairs:
        raise UserError("holds no masks", where=str(tree.root), fix=_EXPECTED)
    problems = [Finding("missing-mask", images[key].path, "has no mask") for key in sorted(images.keys() - found.keys())]
    problems += [
        Finding("missing-image", found[key].path, "is a mask of an image that is not there") for key in found.keys() - images.keys()
    ]
    masks = [found[key].path for key in pairs]
    told = _told(pictures, masks)
    classes, legend, notes = legends.as_found(legends.read(tree, told), tree, masks) if told else legends.of_masks(tree, masks)
    lists = sorted(path for path in pictures.paths if _LIST.fullmatch(path))
    splits = _splits(tree, lists)
    items = []
    for key in pairs:
        image = images[key]
        split = splits.get(posixpath.basename(key), "") if splits else split_of(posixpath.dirname(image.path))
        items.append(Item(image, split, mask=found[key].path, where=found[key].path))
    items.sort(key=lambda item: item.path)
    outside = sum(item.image.outside for item in items)
    problems.sort(key=lambda problem: problem.path)
    ignored = pictures.passed_over(told, *lists)
    return Annotations("masks", task, classes, tuple(items), tree, tuple(problems), ignored, outside, legend=legend, notes=notes)


def _splits(tree: Tree, lists: Sequence[str]) -> dict[str, str]:
    """VOC's lists: name of an image -> split."""
    found: dict[str, str] = {}
    for path in lists:
        split = split_of(stem(posixpath.basename(path)))
        found |= dict.fromkeys((line.strip() for line in reading.decode(tree.read(path)).splitlines()), split)
    return found


def _told(pictures: Pictures, paths: Sequence[str]) -> str:
    """The file that tells how pixels of the masks at `paths` name classes; "" where there is none."""
    places = ("", *sorted({posixpath.dirname(path) for path in paths} | {posixpath.dirname(posixpath.dirname(path)) for path in paths}))
    for name in legends.FILES:
        for place in places:
            path = posixpath.join(place, name)
            if path in pictures.paths:
                return path
    return ""


def write(annotations: Annotations, out: Output) -> None:
    """`images/SPLIT/NAME`, `masks/SPLIT/STEM.png` (index, with a palette to look at) and `classes.txt`."""
    legends.check_writable(annotations)
    for item in annotations.items:
        folder = f"{item.split}/" if item.split else ""
        name = out.name(item)
        out.image(item, f"images/{folder}{name}")
        out.data(f"masks/{folder}{stem(name)}.png", class_masks.png(shapes.classes_of(item, annotations)))
    legends.write_list(annotations.classes, out)
