"""Sharing out a set anew: every image once, the shares asked for, what belongs together together, and a list that stands for the set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade import data
from saccade.core.errors import UserError
from saccade.data import splitting
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.tree import File, FolderTree


def labelled(names: Sequence[str], labels: Sequence[int]) -> Annotations:
    items = [Item(File(name, 1, 1), "", (label,)) for name, label in zip(names, labels, strict=True)]
    classes = tuple(f"c{k}" for k in range(max(labels, default=0) + 1))
    return Annotations("made", "classify", classes, tuple(sorted(items, key=lambda item: item.path)), FolderTree(Path()))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=80),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5), (1.0,), (0.34, 0.33, 0.33), (0.7, 0, 0.3)]),
    st.sampled_from(["class", "chance", "group", "time", "likeness"]),
    st.integers(0, 5),
)
def test_every_image_stands_in_one_split(labels: list[int], shares: tuple[float, ...], by: str, seed: int) -> None:
    names = [f"p{i % 7}/{i}.png" for i in range(len(labels))]
    alike = [[0, len(labels) - 1]] if len(labels) > 1 else []
    found = splitting.split(labelled(names, labels), shares, by=by, pattern=r"p(\d)/", seed=seed, alike=alike)
    assert sorted(path for paths in found.values() for path in paths) == sorted(names)
    assert list(found) == [name for name, share in zip(splitting.SPLITS, shares, strict=False) if share]
    assert found == splitting.split(labelled(names, labels), shares, by=by, pattern=r"p(\d)/", seed=seed, alike=alike)


def test_each_class_has_its_share() -> None:
    names = [f"{i:03d}.png" for i in range(110)]
    labels = [0] * 70 + [1] * 30 + [2] * 10
    found = splitting.split(labelled(names, labels), (0.7, 0.2, 0.1))
    of = dict(zip(names, labels, strict=True))
    counts = {name: Counter(of[path] for path in paths) for name, paths in found.items()}
    assert counts == {"train": {0: 49, 1: 21, 2: 7}, "val": {0: 14, 1: 6, 2: 2}, "test": {0: 7, 1: 3, 2: 1}}
    assert found != splitting.split(labelled(names, labels), (0.7, 0.2, 0.1), seed=1)


def test_a_small_class_is_in_every_split_where_that_can_be() -> None:
    names = [f"{i}.png" for i in range(24)]
    found = splitting.split(labelled(names, [0] * 20 + [1] * 3 + [2]), (0.9, 0.05, 0.05))
    rare = {"20.png", "21.png", "22.png"}
    assert all(len(rare & set(paths)) == 1 for paths in found.values())
    assert "23.png" in found["train"]


def test_objects_are_shared_out_by_the_rarest_class() -> None:
    items = [
        Item(File(f"{i:02d}.png", 1, 1), objects=(Object(0, (0, 0, 1, 1)), *([Object(1, (0, 0, 1, 1))] if i < 10 else [])))
        for i in range(50)
    ]
    found = splitting.split(Annotations("made", "detect", ("often", "rare"), tuple(items), FolderTree(Path())), (0.6, 0.2, 0.2))
    assert [sum(int(path[:2]) < 10 for path in paths) for paths in found.values()] == [6, 2, 2]


def test_groups_stay_together() -> None:
    names = [f"patient{p:02d}/{i}.png" for p in range(20) for i in range(1 + p % 5)]
    found = splitting.split(labelled(names, [0] * len(names)), (0.6, 0.2, 0.2), by="group", pattern=r"patient\d+")
    where = {}
    for name, paths in found.items():
        for path in paths:
            assert where.setdefault(path.split("/")[0], name) == name
    assert [round(len(paths) / len(names), 1) for paths in found.values()] == [0.6, 0.2, 0.2]


def test_the_latest_are_for_the_test() -> None:
    names = [f"day_{day}_{i}.png" for day in (2, 10, 1, 33, 4) for i in range(4)]
    found = splitting.split(labelled(names, [0] * 20), (0.6, 0.2, 0.2), by="time", pattern=r"day_(\d+)")
    days = {name: {int(path.split("_")[1]) for path in paths} for name, paths in found.items()}
    assert days == {"train": {1, 2, 4}, "val": {10}, "test": {33}}
    named = splitting.split(labelled(["b.png", "a.png", "c.png", "d.png"], [0] * 4), (0.5, 0.25, 0.25), by="time", pattern=r"(\w)\.")
    assert named == {"train": ["a.png", "b.png"], "val": ["c.png"], "test": ["d.png"]}


def test_what_is_alike_stays_together() -> None:
    names = [f"{i:02d}.png" for i in range(30)]
    alike = [[0, 7, 9], [1, 2], [10, 11, 12, 13]]
    found = splitting.split(labelled(names, [0] * 30), (0.5, 0.25, 0.25), by="likeness", alike=alike)
    for members in alike:
        assert sum(any(names[i] in paths for i in members) for paths in found.values()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shares": (0.8, 0.1)}, "add up to 1, got 0.8,0.1"),
        ({"shares": (0.0, 0.5, 0.5)}, "add up to 1"),
        ({"shares": (1.5, -0.5)}, "add up to 1"),
        ({"shares": (0.4, 0.3, 0.2, 0.1)}, "two or three"),
        ({"by": "clas"}, "unknown way to split 'clas' .did you mean class"),
        ({"by": "group"}, "needs a regular expression"),
        ({"by": "group", "pattern": "("}, "must be a regular expression"),
        ({"by": "time", "pattern": "x(y)"}, "must match every path, but not 24 of 24, the first 'blue"),
        ({"out": "x.json"}, "must end in .splits.json, got 'x.json'"),
    ],
)
def test_wrong_requests(tiny_folder: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    asked = {"shares": (0.8, 0.2), "out": "x.splits.json", **options}
    with pytest.raises(UserError, match=words) as caught:
        data.split(tiny_folder, **{**asked, "out": tmp_path / str(asked["out"])})
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*.json"))


def test_a_list_stands_for_the_set(tiny_folder: Path, tmp_path: Path) -> None:
    told = data.split(tiny_folder, out=tmp_path / "my.splits.json", shares=(0.5, 0.25, 0.25))
    assert told["splits"] == {"train": 12, "val": 6, "test": 6}
    listed, whole = open_dataset(tmp_path / "my.splits.json"), open_dataset(tiny_folder)
    assert listed.paths == whole.paths and listed.schema.counts == {"train": (4, 4, 4), "val": (2, 2, 2), "test": (2, 2, 2)}
    assert listed.opened == tmp_path / "my.splits.json" and listed.name == "my" and listed.root == tiny_folder
    assert data.split(tmp_path / "my.splits.json", out=tmp_path / "again.splits.json")["splits"]["train"] == 18
    with pytest.raises(UserError, match="is there already"):
        data.split(tiny_folder, out=tmp_path / "my.splits.json")


def test_a_list_names_what_to_use_and_no_more(tiny_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "x.splits.json"
    data.split(tiny_folder, out=place)
    facts = json.loads(place.read_text())
    for change, words in (
        (lambda f: f["splits"]["train"].append("none.png"), "names 1 images that the data no longer hold, the first 'none.png'"),
        (lambda f: f["splits"]["val"].append(f["splits"]["train"][0]), "names an image twice"),
        (lambda f: f["splits"].update(dev=[]), "must be a list of splits"),
        (lambda f: f["splits"].update(val=[1]), "must be a list of splits"),
        (lambda f: f.pop("data"), "must be a list of splits"),
        (lambda f: f.update(data=str(place)), "names another list"),
        (lambda f: f.update(data=str(tmp_path / "gone")), "no such folder"),
        (lambda f: f.update(format="cocoa"), "unknown format"),
    ):
        changed = json.loads(json.dumps(facts))
        change(changed)
        place.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=words):
            open_annotations(place)
    facts["splits"]["train"] = facts["splits"]["train"][:5]
    place.write_text(json.dumps(facts))
    assert len(open_dataset(place)) == 5 + len(facts["splits"]["val"]) + len(facts["splits"]["test"])
    place.write_text("[1, 2")
    with pytest.raises(UserError):
        open_annotations(place)
