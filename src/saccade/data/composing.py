"""Random changes of an image together with its boxes and masks: placed on a canvas at another scale, mirrored, four on one canvas, objects
or regions of one pasted into another.

A sample's target is `Objects`, or the classes of its pixels uint8 `[H, W]`. Numbers come from the generator of the image's position; what
is done is a function of them. Where a canvas shows no image it is FILL, and no class counts there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.core import keys, run_lengths
from saccade.core.class_masks import IGNORED
from saccade.core.config import AugmentConfig
from saccade.core.geometry import FILL
from saccade.core.prepare import resample
from saccade.core.run_lengths import Patch, Rle
from saccade.data import augment
from saccade.data.augment import Draws
from saccade.data.sample import Objects, Sample

Array = NDArray[Any]
LEAST = 0.1  # share of an object that must be left of it: less cannot be told for what it is
SIDE = 2.0  # pixels of the shortest side of a box
NEAR = 64  # places of the stream ahead among which partners are found
LARGE = 1 << 20  # pixels of a scaled image above which only the part that is shown is made
FOCUSED = 0.5  # share of parts of images that are chosen about a pixel of a class
MIDDLE = (0.25, 0.75)  # where the corner of four images may lie, as a share of the canvas
REGION, GROUND = 0.25, 0.5  # shares of an image above which a region, and all of a class, are its ground rather than objects
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)  # pixels that are connected share an edge
EMPTY = Rle((0, 0), b"")
TILES = (0.5, 1.5)  # scale of each of them, by that at which it fits the canvas


def partners(position: int, config: AugmentConfig, seed: int) -> list[int]:
    """The places of the stream whose images the image at `position` needs too: three for a mosaic, and one to paste objects from."""
    if not (config.mosaic or config.paste):
        return []
    generator = keys.Keyed(seed, "partners").at(position)
    four, pasted = generator.random(2)
    ahead = (position + 1 + generator.integers(0, NEAR, 4)).tolist()
    return ahead[: 3 * bool(four < config.mosaic)] + ahead[3 : 3 + bool(pasted < config.paste)]


def changed(
    samples: Sequence[Sample], size: tuple[int, int], config: AugmentConfig, generator: np.random.Generator, *, native: bool = False
) -> Sample:
    """The image of a position with those of its `partners`, on a canvas of `size` (height, width). native: scales are by the image's own
    pixels, not by those at which it fits."""
    if len(samples) >= 4:
        canvas = mosaic(samples[:4], size, generator, native=native)
    else:
        canvas = jittered(samples[0], size, config.resize, generator, native=native)
    if len(samples) in (2, 5):
        other = jittered(samples[-1], size, config.resize, generator, native=native)
        canvas = pasted(canvas, _mirrored(other, generator, config.flip), generator)
    canvas = _mirrored(canvas, generator, config.flip)
    pixels = torch.from_numpy(canvas.image.transpose(2, 0, 1).copy())[None].float()
    coloured = augment.recolor(pixels, Draws.of(generator), config).round_().clamp_(0, 255).byte()[0]
    return replace(canvas, image=coloured.permute(1, 2, 0).numpy())  # a view: batches are of channels first


def _mirrored(sample: Sample, generator: np.random.Generator, probability: float) -> Sample:
    return flipped(sample) if generator.random() < probability else sample


def jittered(
    sample: Sample, size: tuple[int, int], scales: tuple[float, float], generator: np.random.Generator, *, native: bool = False
) -> Sample:
    """The image at a random scale and place on a canvas of `size` (height, width): large-scale jitter at 0.1 to 2 times the scale at which
    it fits (Ghiasi et al. 2021, "Simple copy-paste is a strong data augmentation method for instance segmentation", section 3), or at which
    it is its own size (native). Where the canvas shows a part of an image with classes of pixels, half of the parts are chosen about a
    pixel of a class, each class as likely as any other: rare ones are seen too."""
    height, width = sample.image.shape[:2]
    factor, down, across = generator.random(3)
    scale = (1.0 if native else min(size[0] / height, size[1] / width)) * (scales[0] + (scales[1] - scales[0]) * factor)
    tall, wide = _scaled((height, width), scale)
    if not isinstance(sample.target, Objects) and (tall > size[0] or wide > size[1]) and generator.random() < FOCUSED:
        y, x = _pixel_of_a_class(sample.target, generator)
        at = _about(size[0], tall, (y + 0.5) * tall / height, down), _about(size[1], wide, (x + 0.5) * wide / width, across)
        return placed(sample, size, scale, at)
    return placed(sample, size, scale, (_between(size[0] - tall, down), _between(size[1] - wide, across)))


def _pixel_of_a_class(classes: Array, generator: np.random.Generator) -> tuple[int, int]:
    """Row and column of a pixel of one of the classes of uint8 `[H, W]`, drawn evenly, or of any where none counts."""
    there = np.flatnonzero(np.bincount(classes.ravel(), minlength=IGNORED)[:IGNORED])
    which, place = generator.random(2)
    among = np.flatnonzero(classes == there[int(which * len(there))]) if len(there) else np.arange(classes.size)
    row, column = divmod(int(among[int(place * len(among))]), classes.shape[1])
    return row, column


def _about(side: int, length: int, place: float, share: float) -> int:
    """Where an image of `length` begins on a canvas of `side` that shows its `place`, with `share` of the canvas before it, as far as the
    image reaches; where it is no longer than the canvas, anywhere on it."""
    if length <= side:
        return _between(side - length, share)
    return min(0, max(side - length, round(share * side - place)))


def mosaic(samples: Sequence[Sample], size: tuple[int, int], generator: np.random.Generator, *, native: bool = False) -> Sample:
    """Four images about one corner (Bochkovskiy et al. 2020, "YOLOv4: optimal speed and accuracy of object detection", section 3.3)."""
    middle = [round(side * (MIDDLE[0] + (MIDDLE[1] - MIDDLE[0]) * share)) for side, share in zip(size, generator.random(2))]
    rows = ((0, middle[0]), (middle[0], size[0]))
    columns = ((0, middle[1]), (middle[1], size[1]))
    parts = []
    for place, sample in enumerate(samples):
        (top, bottom), (left, right) = rows[place // 2], columns[place % 2]
        height, width = sample.image.shape[:2]
        scale = (1.0 if native else min(size[0] / height, size[1] / width)) * (TILES[0] + (TILES[1] - TILES[0]) * generator.random())
        tall, wide = _scaled((height, width), scale)
        # The corner that is nearest to the middle lies there.
        at = (middle[0] - tall if place < 2 else middle[0], middle[1] - wide if place % 2 == 0 else middle[1])
        parts.append(((top, bottom, left, right), placed(sample, size, scale, at, window=(top, bottom, left, right))))
    image = np.empty_like(parts[0][1].image)
    for (top, bottom, left, right), part in parts:
        image[top:bottom, left:right] = part.image[top:bottom, left:right]
    targets = [part.target for _, part in parts]
    if isinstance(targets[0], Objects):
        return replace(samples[0], image=image, target=_together(targets))
    classes = np.full(size, IGNORED, np.uint8)
    for ((top, bottom, left, right), _), target in zip(parts, targets, strict=True):
        classes[top:bottom, left:right] = target[top:bottom, left:right]
    return replace(samples[0], image=image, target=classes)


def pasted(onto: Sample, other: Sample, generator: np.random.Generator) -> Sample:
    """Some objects of `other`, an image of the same size, laid over `onto` (Ghiasi et al. 2021, section 3): what they hide is taken off the
    masks and boxes of those below. Both have masks of objects, or classes of pixels, of which regions are taken (as Olsson et al.
    2021, "ClassMix: segmentation-based data augmentation for semi-supervised learning", section 3, take classes)."""
    if onto.image.shape != other.image.shape:
        raise ValueError(f"both images must have one shape, got {onto.image.shape} and {other.image.shape}")
    if not isinstance(other.target, Objects):
        over = np.flatnonzero(_regions(other.target, generator))  # by places: several times faster than by a mask
        image, target = onto.image.copy(), onto.target.copy()
        for below, above in ((image, other.image), (target, other.target)):
            below.reshape(target.size, -1)[over] = above.reshape(target.size, -1)[over]
        return replace(onto, image=image, target=target)
    taken = (generator.random(len(other.target.labels)) < 0.5) & ~other.target.crowd
    if not taken.any():
        return onto
    added = _chosen(other.target, taken)
    over = np.any([run_lengths.to_mask(mask) for mask in added.masks], axis=0)
    image = np.where(over[..., None], other.image, onto.image)
    below = [run_lengths.patch(mask) for mask in onto.target.masks]
    parts = [replace(part, pixels=part.pixels & ~over[_slices(part)]) for part in below]
    left = _cut(onto.target, parts, [int(part.pixels.sum()) for part in below], over.shape)
    return replace(onto, image=image, target=_together([left, added]))


def _regions(classes: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Where some of the connected regions of one class lie, each as likely as not, but nothing that is the ground of the image."""
    from scipy.ndimage import label

    over, there = np.zeros(classes.shape, bool), np.zeros(IGNORED + 1, bool)
    there[classes] = True
    for number in np.flatnonzero(there[:IGNORED]).tolist():
        shape = classes == number
        covered = np.count_nonzero(shape)
        if covered > GROUND * classes.size:
            continue
        rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        regions, count = label(shape[box], CROSS, output=np.intp)
        taken = generator.random(count + 1) < 0.5
        if covered > REGION * classes.size:  # or none of its regions is as large
            taken &= np.bincount(regions.ravel(), minlength=count + 1) <= REGION * classes.size
        taken[0] = False  # what is of another class
        if taken.any():
            over[box] |= taken.take(regions)
    return over


def flipped(sample: Sample) -> Sample:
    """Left is right."""
    target, width = sample.target, sample.image.shape[1]
    image = torch.from_numpy(np.require(sample.image, requirements=["C", "W"])).flip(1).numpy()  # thirty times faster than NumPy
    if not isinstance(target, Objects):
        return replace(sample, image=image, target=np.ascontiguousarray(target[:, ::-1]))
    boxes = np.column_stack([width - target.boxes[:, 2], target.boxes[:, 1], width - target.boxes[:, 0], target.boxes[:, 3]])
    parts = [run_lengths.patch(mask) for mask in target.masks]
    mirrored = [Patch(part.pixels[:, ::-1], part.top, width - part.left - part.pixels.shape[1]) for part in parts]
    turned = tuple(run_lengths.from_patch(part, mask.size) for part, mask in zip(mirrored, target.masks, strict=True))
    return replace(sample, image=image, target=replace(target, boxes=boxes, masks=turned))


def placed(
    sample: Sample, size: tuple[int, int], scale: float, at: tuple[int, int], *, window: tuple[int, int, int, int] | None = None
) -> Sample:
    """The image scaled by `scale` on a canvas of `size` (height, width), its first pixel `at` (row, column), which may lie outside.

    Only the part in `window` (top, bottom, left, right; None: the canvas) is drawn. Objects of which less than LEAST is left are gone, so
    are boxes thinner than SIDE; the box of a cut mask is that of what is left.
    """
    tall, wide = _scaled(sample.image.shape[:2], scale)
    top, bottom, left, right = window or (0, size[0], 0, size[1])
    rows = slice(min(max(at[0], top), bottom), max(min(at[0] + tall, bottom), top))
    columns = slice(min(max(at[1], left), right), max(min(at[1] + wide, right), left))
    shown = (slice(rows.start - at[0], rows.stop - at[0]), slice(columns.start - at[1], columns.stop - at[1]))

    def moved(pixels: Array, fill: int, *, nearest: bool) -> Array:
        canvas: Array = np.full((*size, *pixels.shape[2:]), fill, pixels.dtype)
        if rows.stop > rows.start and columns.stop > columns.start:
            canvas[rows, columns] = _nearest(pixels, (tall, wide), shown) if nearest else _part(pixels, (tall, wide), shown)
        return canvas

    image, target = moved(sample.image, FILL, nearest=False), sample.target
    if not isinstance(target, Objects):
        return replace(sample, image=image, target=moved(target, IGNORED, nearest=True))
    height, width = sample.image.shape[:2]
    boxes = target.boxes * np.tile([wide / width, tall / height], 2) + np.tile([at[1], at[0]], 2)
    if target.masks:
        near = (boxes[:, :2] < [right, bottom]).all(1) & (boxes[:, 2:] > [left, top]).all(1)  # the rest need not be decoded
        target = _chosen(target, near)
        parts = [run_lengths.patch(mask).resized((height, width), (tall, wide)) for mask in target.masks]
        there = [replace(part, top=part.top + at[0], left=part.left + at[1]).cut(top, bottom, left, right) for part in parts]
        return replace(sample, image=image, target=_cut(target, there, [int(part.pixels.sum()) for part in parts], size))
    return replace(sample, image=image, target=_clipped(target, boxes, (top, bottom, left, right)))


def _clipped(target: Objects, boxes: NDArray[np.float64], window: tuple[int, int, int, int]) -> Objects:
    """The objects with their boxes cut at the window."""
    top, bottom, left, right = window
    cut = boxes.clip([left, top, left, top], [right, bottom, right, bottom])
    sides, whole = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
    kept = (sides.min(1, initial=np.inf) >= SIDE) & (sides.prod(1) >= LEAST * whole.prod(1))
    return _chosen(replace(target, boxes=cut), kept)


def _cut(target: Objects, parts: Sequence[Patch], before: Sequence[int], size: tuple[int, int]) -> Objects:
    """The objects with what is left of their masks on a canvas, of `before` pixels each, and its boxes."""
    boxes = np.array([part.box for part in parts], np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    left = np.array([int(part.pixels.sum()) for part in parts], np.float64)
    kept = (left > 0) & (left >= LEAST * np.array(before, np.float64)) & (sides.min(1, initial=np.inf) >= SIDE)
    covers = tuple(run_lengths.from_patch(part, size) if stays else EMPTY for part, stays in zip(parts, kept, strict=True))
    return _chosen(replace(target, boxes=boxes, masks=covers), kept)


def _slices(part: Patch) -> tuple[slice, slice]:
    """Where a patch lies in its mask."""
    return slice(part.top, part.top + part.pixels.shape[0]), slice(part.left, part.left + part.pixels.shape[1])


def _chosen(target: Objects, kept: NDArray[np.bool_]) -> Objects:
    masks = tuple(mask for mask, stays in zip(target.masks, kept) if stays)
    return Objects(target.boxes[kept], target.labels[kept], target.crowd[kept], target.difficult[kept], masks)


def _together(targets: Sequence[Objects]) -> Objects:
    boxes, labels = np.concatenate([one.boxes for one in targets]), np.concatenate([one.labels for one in targets])
    crowd, difficult = np.concatenate([one.crowd for one in targets]), np.concatenate([one.difficult for one in targets])
    return Objects(boxes, labels, crowd, difficult, tuple(mask for one in targets for mask in one.masks))


def _scaled(shape: Sequence[int], scale: float) -> tuple[int, int]:
    """(height, width), one pixel or more."""
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _between(room: int, share: float) -> int:
    """A place within the room that is left, or, where it is negative, within what sticks out."""
    return int(share * (room + 1)) if room >= 0 else -int(share * (1 - room))


def _nearest(pixels: Array, size: tuple[int, int], shown: tuple[slice, slice]) -> Array:
    """The part `shown` of uint8 `[H, W]` at `size`, each pixel that of the nearest."""
    if pixels.shape == size:
        return pixels[shown]
    rows, columns = (
        ((np.arange(part.start, part.stop) + 0.5) * (own / side)).astype(np.int64)
        for part, own, side in zip(shown, pixels.shape, size, strict=True)
    )
    found: Array = pixels[rows[:, None], columns]
    return found


def _part(pixels: Array, size: tuple[int, int], shown: tuple[slice, slice]) -> Array:
    """The part `shown` of uint8 `[H, W, C]` at `size`, antialiased. Of a large image no more is resized than that."""
    if pixels.shape[:2] == size:
        return pixels[shown]
    if size[0] * size[1] <= LARGE:
        whole = np.require(pixels, requirements=["C", "W"])  # what is kept may be read alone
        return augment.resized(whole, size)[shown]
    cuts, box = [], []
    for part, own, side in zip(shown, pixels.shape[:2], size, strict=True):
        ratio = own / side
        reach = math.ceil(max(1.0, ratio)) + 1  # of the filter, and one for what rounding may do
        first, last = max(0, math.floor(part.start * ratio) - reach), min(own, math.ceil(part.stop * ratio) + reach)
        cuts.append(slice(first, last))
        box.append((part.start * ratio - first, part.stop * ratio - first))
    cut = pixels[cuts[0], cuts[1]]
    wanted = (shown[0].stop - shown[0].start, shown[1].stop - shown[1].start)
    return resample(cut, wanted, (box[1][0], box[0][0], box[1][1], box[0][1]))
