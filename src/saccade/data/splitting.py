"""Which images train, validate and test: held out by a hash of their paths, or as a user asks, kept as a list that stands for the set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys
from saccade.core.errors import UserError, unknown
from saccade.core.files import parse_json, read_all, write_json
from saccade.data.annotations import Annotations

LARGE = 2000
SPLITS = ("train", "val", "test")
SUFFIX = ".splits.json"
BY = ("class", "group", "time", "likeness", "chance")


def hold_out(paths: Sequence[str], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images go to validation: bool [N].

    10 % of large sets (2,000 images and more), 15 % of smaller ones; stratified; at least one of every class that has two.
    """
    share = 0.10 if len(paths) >= LARGE else 0.15
    chosen = np.zeros(len(paths), bool)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label).tolist()
        if len(members) > 1:
            ranked = sorted(members, key=lambda i: keys.path_hash(paths[i]))
            chosen[ranked[: max(1, round(share * len(members)))]] = True
    return chosen


def strata(annotations: Annotations) -> NDArray[np.int64]:
    """What each part of a set must have its share of: int64 `[N]`, an image's class, or the rarest of those in it; -1 where it has none."""
    said = [sorted({*item.labels, *(one.label for one in item.objects)}) for item in annotations.items]
    counts = np.bincount([label for labels in said for label in labels], minlength=len(annotations.classes) + 1)
    return np.array([min(labels, key=lambda label: counts[label]) if labels else -1 for labels in said], np.int64)


def split(
    annotations: Annotations,
    shares: Sequence[float],
    *,
    by: str = "class",
    pattern: str | None = None,
    seed: int = 0,
    alike: Sequence[Sequence[int]] = (),
) -> dict[str, list[str]]:
    """Paths by split, in these shares of train, val and test (a split of share 0 is left out).

    by: "class", so that each has its share of every class; "chance"; "group", so that images in whose paths `pattern` catches the same (its
    first bracket) stay together: a patient, a scene, a video; "time", the latest images for the test, by what `pattern` catches, numbers as
    numbers; "likeness", so that the images of each list in `alike` (indices) stay together. Raises UserError.
    """
    shares = _checked(shares)
    paths = [item.path for item in annotations.items]
    draws = keys.generator(seed, "split", 0).random(len(paths))
    if by == "class":
        places = _stratified(strata(annotations), draws, shares)
    elif by == "chance":
        places = _stratified(np.zeros(len(paths), np.int64), draws, shares)
    elif by == "group":
        places = _dealt(_groups(_caught(paths, pattern)), draws, shares)
    elif by == "likeness":
        together = {i for members in alike for i in members}
        places = _dealt([*map(list, alike), *([i] for i in range(len(paths)) if i not in together)], draws, shares)
    elif by == "time":
        places = _cut(_caught(paths, pattern), shares)
    else:
        raise unknown("way to split", by, BY, where="--by")
    return {name: [paths[i] for i in np.flatnonzero(places == number)] for number, name in enumerate(SPLITS) if shares[number]}


def _checked(shares: Sequence[float]) -> list[float]:
    shares = [*shares, *[0.0] * (3 - len(shares))]
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        said = ",".join(f"{share:g}" for share in shares)
        raise UserError(
            f"shares must be two or three numbers from 0 to 1 that add up to 1, got {said}", where="--shares", fix="0.8,0.1,0.1"
        )
    return shares


def _counts(n: int, shares: Sequence[float]) -> list[int]:
    """How many of n each split gets (largest remainders); val and test at least one each where there are enough."""
    exact = [share * n for share in shares]
    counts = [int(number) for number in exact]
    for place in sorted(range(3), key=lambda k: counts[k] - exact[k])[: n - sum(counts)]:
        counts[place] += 1
    for place in (1, 2):
        if shares[place] and not counts[place] and counts[0] > 1:
            counts[place], counts[0] = 1, counts[0] - 1
    return counts


def _stratified(kinds: NDArray[np.int64], draws: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.int64]:
    places = np.zeros(len(kinds), np.int64)
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        places[members[np.argsort(draws[members], kind="stable")]] = np.repeat([0, 1, 2], _counts(len(members), shares))
    return places


def _dealt(groups: Sequence[Sequence[int]], draws: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.int64]:
    """Whole groups, the largest first, each to the split that lacks the largest part of what it should have."""
    wanted = np.array(shares) * len(draws)
    places, had = np.zeros(len(draws), np.int64), np.zeros(3)
    for members in sorted(groups, key=lambda members: (-len(members), draws[members[0]])):
        lacking = np.where(wanted > 0, (wanted - had) / np.maximum(wanted, 1e-9), -np.inf)
        place = int(lacking.argmax())
        places[list(members)] = place
        had[place] += len(members)
    return places


def _cut(caught: Sequence[str], shares: Sequence[float]) -> NDArray[np.int64]:
    """In the order of what was caught; what was caught alike is never parted."""
    numbers = all(re.fullmatch(r"[+-]?\d+(\.\d+)?", text) for text in caught)
    times = [float(text) for text in caught] if numbers else list(caught)
    order = sorted(range(len(times)), key=lambda i: times[i])
    places = np.zeros(len(times), np.int64)
    places[order] = np.repeat([0, 1, 2], _counts(len(times), shares))
    for earlier, later in itertools.pairwise(order):
        if times[earlier] == times[later]:
            places[later] = places[earlier]
    return places


def _groups(caught: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(caught):
        groups.setdefault(text, []).append(i)
    return list(groups.values())


def _caught(paths: Sequence[str], pattern: str | None) -> list[str]:
    """What the first bracket of the pattern catches in each path (all of the match where it has none)."""
    where, fix = "--pattern", r"for 'site1/patient042_3.png': --pattern '(patient\d+)'"
    if not pattern:
        raise UserError("needs a regular expression that finds the group or the time in each path", where=where, fix=fix)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"must be a regular expression, got {pattern!r}: {error}", where=where, fix=fix) from None
    found = [compiled.search(path) for path in paths]
    missed = [path for path, match in zip(paths, found, strict=True) if match is None]
    if missed:
        raise UserError(f"must match every path, but not {len(missed)} of {len(paths)}, the first {missed[0]!r}", where=where, fix=fix)
    return [match[1] if compiled.groups else match[0] for match in found if match is not None]


def check_out(out: Path) -> Path:
    """`out`, if a list of splits may stand there; raises UserError."""
    if not out.name.endswith(SUFFIX) or out.name == SUFFIX:
        raise UserError(f"must end in {SUFFIX}, got {out.name!r}", where="--out", fix=f"--out {out.name.partition('.')[0] or 'my'}{SUFFIX}")
    if out.is_dir() or out.exists():
        raise UserError("is there already", where=str(out), fix="give another --out, or remove it")
    return out


def write(path: Path, annotations: Annotations, splits: Mapping[str, Sequence[str]]) -> Path:
    """The list as a file that stands for the data set with these splits: it can be given wherever a data set can."""
    facts = {"data": str(annotations.opened), "format": annotations.format, "task": annotations.task, "splits": splits}
    return write_json(path, facts)


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote, checked: data, format, task, splits; raises UserError."""
    facts = parse_json(read_all(path), where=str(path))
    fits = isinstance(facts, dict) and all(isinstance(facts.get(key), str) for key in ("data", "format", "task"))
    splits = facts.get("splits") if fits else None
    if not isinstance(splits, dict) or not set(splits) <= set(SPLITS) or not all(map(_are_texts, splits.values())):
        raise UserError("must be a list of splits as `saccade data split` writes it, but is another file", where=str(path))
    return dict(facts)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def apply(annotations: Annotations, splits: Mapping[str, Sequence[str]], where: Path) -> Annotations:
    """The set with these splits, without the images that none of them names; raises UserError where one is gone or named twice."""
    known = {item.path: item for item in annotations.items}
    named = [(path, name) for name, paths in splits.items() for path in paths]
    gone = [path for path, _ in named if path not in known]
    if gone:
        raise UserError(
            f"names {len(gone)} images that the data no longer hold, the first {gone[0]!r}", where=str(where), fix="split again"
        )
    if len({path for path, _ in named}) < len(named):
        raise UserError("names an image twice", where=str(where), fix="split again")
    items = tuple(replace(known[path], split=name) for path, name in sorted(named))
    return replace(annotations, items=items, opened=where)
