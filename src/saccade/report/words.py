"""Figures and findings in plain words: names made harmless, numbers made readable, what the results say to do next."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

NARROW = "\u202f"  # narrow no-break space, between a number and its unit
JOINERS = frozenset("\u200c\u200d")  # scripts and emoji need them; every other format character is shown by its code
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """How a metric is called and read; `percent`: a share that is written in per cent; `higher`: more is better; unit: after the number."""

    label: str
    meaning: str
    percent: bool = True
    higher: bool = True
    unit: str = ""


MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure("Accuracy", "the share of images named rightly"),
    "top5_accuracy": Measure("Top-5 accuracy", "the right class is among the five best guesses"),
    "f1_macro": Measure("Macro F1", "precision and recall in one, each class counting the same"),
    "ece": Measure("Calibration error", "how far confidence is from truth on average; 0 is best", higher=False),
    "precision": Measure("Precision", "of what it gave this name, the share that is"),
    "recall": Measure("Recall", "of what is of this class, the share it found"),
    "f1": Measure("F1", "precision and recall in one"),
    "images": Measure("Images", "how many of this class were evaluated", percent=False),
    "support": Measure("Images", "how many of this class were evaluated", percent=False),
    "nll": Measure("Log loss", "punishes confident mistakes; 0 is best", percent=False, higher=False),
    "mean_flops": Measure(
        "FLOPs of an image", "operations on average, as images leave the network early; fewer are faster", percent=False, higher=False
    ),
    "loss": Measure("Loss", "what training makes small", percent=False, higher=False),
    "told_apart": Measure(
        "Told apart", "how often the run's own judge picks the real one of a real and a made image; 50 % is a guess", higher=False
    ),
    "bits_per_dim": Measure(
        "Bits per dimension", "the most bits it needs to store one value of a pixel; lower is better", percent=False, higher=False
    ),
    "bits_per_dim_weighted": Measure(
        "Bits per dimension, closer", "the same by a closer bound, from several draws; lower is better", percent=False, higher=False
    ),
    "elbo": Measure("ELBO", "how likely the model finds an image at least, in nats; higher is better", percent=False),
    "map": Measure("mAP", "average precision of the classes, over overlaps of 0.5 to 0.95"),
    "map_50": Measure("mAP at 0.5", "an answer counts where half of it and of the object together is common to both"),
    "map_75": Measure("mAP at 0.75", "only boxes or masks that fit closely count"),
    "map_small": Measure("mAP, small", "of objects below 32 x 32 pixels"),
    "map_medium": Measure("mAP, medium", "of objects of 32 x 32 to 96 x 96 pixels"),
    "map_large": Measure("mAP, large", "of objects above 96 x 96 pixels"),
    "map_voc07": Measure("AP, VOC 2007", "at an overlap of 0.5, precision read at eleven recalls"),
    "map_voc12": Measure("AP, VOC 2012", "at an overlap of 0.5, the area under precision and recall"),
    "map_rare": Measure("mAP, rare", "of classes in at most 10 training images"),
    "map_common": Measure("mAP, common", "of classes in 11 to 100 training images"),
    "map_frequent": Measure("mAP, frequent", "of classes in more than 100 training images"),
    "miou": Measure("Mean IoU", "what is common to answer and truth, by what is of either; the mean over classes"),
    "iou": Measure("IoU", "what is common to answer and truth, by what is of either"),
    "dice": Measure("Dice", "what is common to answer and truth, by the mean of both"),
    "pixel_accuracy": Measure("Pixel accuracy", "the share of pixels named rightly"),
    "boundary_f1": Measure("Boundary F1", "how much of the edges of answer and truth lie close to each other"),
    "hausdorff_95": Measure("Hausdorff 95", "how far edges lie apart, but for the worst 5 %", percent=False, unit="px", higher=False),
    "pq": Measure("PQ", "panoptic quality: overlap of the segments that are found, by how many are; the mean over classes"),
    "sq": Measure("SQ", "how well the segments that are found fit"),
    "rq": Measure("RQ", "how many segments are found, and of how many that are told: F1 at an overlap of 0.5"),
    "pq_things": Measure("PQ, things", "of the classes that can be counted"),
    "pq_stuff": Measure("PQ, stuff", "of the classes that cannot"),
    "pixels": Measure("Pixels", "how many are of this class", percent=False),
    "objects": Measure("Objects", "how many of this class were looked for", percent=False),
    "threshold": Measure("Threshold", "the score from which it tells of an object: F1 is best there", percent=False),
    "best_f1": Measure("Best F1", "of this class alone, at a threshold of its own"),
    "best_precision": Measure("Precision there", "at the threshold that is best for this class"),
    "best_recall": Measure("Recall there", "at the threshold that is best for this class"),
    "best_threshold": Measure("Best threshold", "the score from which this class is told best", percent=False),
    "psnr": Measure("PSNR", "how close reconstructions are to their images; higher is better", percent=False, unit="dB"),
    "ssim": Measure("SSIM", "how alike reconstructions and their images are in structure; 1 is the same", percent=False),
}
# Figures of whole sets of images, named after the features that the sets are compared on: "fid_classifier".
COMPARED: Mapping[str, Measure] = {
    "fid": Measure("FID", "how far the made images are from real ones, as sets; lower is better", percent=False, higher=False),
    "kid": Measure(
        "KID", "how far the made images are from real ones, whatever their number; lower is better", percent=False, higher=False
    ),
    "precision": Measure("Precision", "the share of made images that look real"),
    "recall": Measure("Recall", "the share of real images that could have been made"),
    "density": Measure("Density", "how crowded real images are around made ones; about 1 where both are alike", percent=False),
    "coverage": Measure("Coverage", "the share of real images with a made one among their neighbours"),
    "perceptual": Measure(
        "Perceptual distance",
        "how different reconstructions look from their images to a network; 0 is the same",
        percent=False,
        higher=False,
    ),
    "spread": Measure("Spread", "how much made images differ, by how much real ones do; near 0 all are alike", percent=False),
}
FEATURES: Mapping[str, str] = {"clusters": "cluster features"}  # names of features that do not read well before "features"
SPLITS: Mapping[str, str] = {"test": "held-out test", "val": "validation", "train": "training"}


def measure(name: str) -> Measure:
    """The entry for a metric; a name that is not in the tables speaks for itself and is written as a plain number."""
    kind, _, features = name.partition("_")
    if kind in COMPARED and features:
        return replace(COMPARED[kind], label=f"{COMPARED[kind].label} ({_features(name)})")
    readable = visible(name).replace("_", " ")
    return MEASURES.get(name, Measure(readable[:1].upper() + readable[1:], "", percent=False))


def _features(name: str) -> str:
    features = visible(name.partition("_")[2])
    return FEATURES.get(features, f"{features} features")


def visible(text: object) -> str:
    """`text` with control, direction and other invisible characters as `\\u202e`: nothing in a name may reorder or hide what is read."""
    return "".join(c if c in JOINERS or unicodedata.category(c) not in HIDDEN else f"\\u{ord(c):04x}" for c in str(text))


def short(text: object, limit: int = 40) -> str:
    """`visible(text)` cut in the middle to `limit` characters: the end of a file's name often says most."""
    full = visible(text)
    if len(full) <= limit:
        return full
    tail = limit // 2
    return f"{full[: limit - tail - 1]}…{full[-tail:]}"


def number(value: object) -> float | None:
    """`value` as a finite float, else None (missing, NaN, a text)."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    converted = float(value)
    return converted if math.isfinite(converted) else None


def percent(share: float) -> str:
    """0.98888 -> "98.9 %"; more decimals where one would round to a 0 or 100 that it is not."""
    return f"{_percent_digits(share)}{NARROW}%"


def _percent_digits(share: float) -> str:
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}"
    decimals = next((d for d in (1, 2, 3) if round(100 * share, d) not in (0.0, 100.0)), 4)
    return f"{100 * share:.{decimals}f}"


def figure(name: str, value: object) -> str:
    """A metric's value as text; an em dash where it is not defined."""
    known = number(value)
    if known is None:
        return "—"
    kind = measure(name)
    return percent(known) if kind.percent else f"{_plain(known)}{_unit(kind)}"


def _plain(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"−{text[1:]}" if text.startswith("-") else text


def _unit(kind: Measure) -> str:
    return kind.unit and f"{NARROW}{kind.unit}"


def interval(name: str, low: object, high: object) -> str:
    """As "97.5–99.7 %"; "" where there is none, or where resampling could not spread (all right: see `no_mistakes`)."""
    bottom, top = number(low), number(high)
    if bottom is None or top is None or bottom == top:
        return ""
    kind = measure(name)
    if kind.percent:
        return f"{_percent_digits(bottom)}–{_percent_digits(top)}{NARROW}%"
    between = " to " if bottom < 0 else "–"  # a dash beside a minus cannot be read
    return f"{_plain(bottom)}{between}{_plain(top)}{_unit(kind)}"


def count(value: int, one: str, many: str = "") -> str:
    """As "1 image" or "1,240 images"."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def images_of(split: str, n: int) -> str:
    """As "360 held-out test images"."""
    kind = SPLITS.get(split)
    return count(n, f"{kind} image") if kind else f"{count(n, 'image')} of the split {short(split)}"


def verdict(data_split: str, n: int, headline: Sequence[Row], task: str = "classify") -> str:
    """The result in one sentence, from the first figure of the headline; of "generate" in one or two, from those that say most."""
    first = next((row for row in headline if number(row.get("value")) is not None), None)
    if n == 0 or first is None:
        return "This model has not been measured on any image yet."
    where, value = images_of(data_split, n), figure(first["name"], first["value"])
    if task == "generate" and (said := _made_words(where, headline)):
        return said
    range_ = _range(first)
    doubt = f" ({range_})" if range_ else ""
    if first["name"] == "accuracy":
        return f"On {where} the model is right {value} of the time{doubt}."
    return f"On {where} the model reaches {measure(first['name']).label} {value}{doubt}."


def _range(row: Row) -> str:
    range_ = interval(row["name"], row.get("low"), row.get("high"))
    return f"95{NARROW}% interval {range_}" if range_ else ""


def _made_words(where: str, headline: Sequence[Row]) -> str:
    """What is known of stored and made images, in this order; "" where none of the figures is there that can be said in words."""
    known: dict[str, Row] = {}
    for row in headline:
        kind, _, features = row["name"].partition("_")
        if number(row.get("value")) is not None:
            known.setdefault(kind if kind in COMPARED and features else row["name"], row)
    stored = _stored(where, known)
    distance = _distance("the real ones" if stored else f"the {where}", known)
    shares = _shares("of them" if distance else "of the made images", known)
    made = "; ".join(part for part in (distance, shares) if part)
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in (stored, made) if part)


def _stored(where: str, known: Mapping[str, Row]) -> str:
    parts = []
    if bits := known.get("bits_per_dim"):
        doubt = f"; {_range(bits)}" if _range(bits) else ""
        parts.append(f"it stores the {where} in {figure(bits['name'], bits['value'])} bits per value (lower is better{doubt})")
    if psnr := known.get("psnr"):
        images = "them" if parts else f"the {where}"
        parts.append(f"its reconstructions match {images} at {figure('psnr', psnr['value'])} PSNR (higher is better)")
    return ", and ".join(parts)


def _distance(real: str, known: Mapping[str, Row]) -> str:
    row = known.get("fid") or known.get("kid")
    if row is None:
        return ""
    kind = COMPARED[row["name"].partition("_")[0]].label
    told = "; ".join(part for part in (_features(row["name"]), _range(row)) if part)
    return f"the made images are at {kind} {figure(row['name'], row['value'])} ({told}) from {real}"


def _shares(of: str, known: Mapping[str, Row]) -> str:
    parts = []
    if precision := known.get("precision"):
        parts.append(f"{figure(precision['name'], precision['value'])} {of} look real (precision)")
    if reached := known.get("coverage") or known.get("recall"):
        name = reached["name"].partition("_")[0]
        who = "they" if parts or of == "of them" else "the made images"
        parts.append(f"{who} cover {figure(reached['name'], reached['value'])} of the real ones ({name})")
    return " and ".join(parts)


def calibration(bins: Sequence[Row]) -> str:
    """What the reliability bins say about the model's confidence; "" without any image in them."""
    total = sum(int(row["count"]) for row in bins)
    if total == 0:
        return ""
    filled = [row for row in bins if row["count"]]
    confidence = sum(row["count"] * row["confidence"] for row in filled) / total
    right = sum(row["count"] * row["accuracy"] for row in filled) / total
    noise = 2 * math.sqrt(max(right * (1 - right), 1 / total) / total)  # two standard errors of `right`
    facts = f"On average it is {percent(confidence)} sure and right {percent(right)} of the time"
    if abs(confidence - right) <= max(noise, 0.01):
        return f"{facts}: you can take its confidence at its word, as far as {count(total, 'image')} can tell."
    if confidence > right:
        return f"{facts}: it is too sure of itself. Read a high confidence with some caution."
    return f"{facts}: it is too modest. It is right more often than it claims."


def no_mistakes(n: int) -> str:
    """What a spotless result does and does not prove (the exact binomial bound for 0 errors in n)."""
    bound = 1 - 0.05 ** (1 / n)
    return f"Even so, with {count(n, 'image')} its true error rate could still be as high as {percent(bound)} (95{NARROW}% bound)."


def best_words(name: str, best: tuple[float, float], last: float, unit: str, *, rising: bool) -> str:
    """Where the best evaluation lay and what that says; best = (x, value), last = x of the last evaluation."""
    at, value = best
    text = f"Best {inside(measure(name).label)} on the validation images: {figure(name, value)} at {unit} {at:.4g} of {last:.4g}."
    if rising:
        return f"{text} It was still getting better at the end: longer training may help."
    return f"{text} That state of the network is the one that was kept."


def inside(label: str) -> str:
    """A label within a sentence: in small letters but for abbreviations (FID)."""
    return " ".join(word if sum(c.isupper() for c in word) > 1 else word.lower() for word in label.split(" "))


def losses_words(names: Sequence[str], *, exits: bool = False) -> str:
    """What to know before reading the losses of these names; "" where they mean what they seem to; exits: the network has had some."""
    if exits:
        return "Where the network has exits, this is the loss of its last layer; training makes those of the exits small too."
    if {"judge/loss", "generator/loss"} <= set(names):
        return "The losses of the generator and of its judge answer each other: neither has to fall while the images get better."
    return ""
