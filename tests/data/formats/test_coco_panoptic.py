"""COCO's panoptic format: a real excerpt pixel by pixel, round trips of drawn sets, what is wrong named with its place."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade import data
from saccade.core import run_lengths
from saccade.core.class_masks import IGNORED
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data import doctor, drawing, formats, scenes
from saccade.data.annotations import Annotations, Item, Object
from saccade.data.formats import coco_panoptic
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.tree import File, FolderTree
from saccade.data.viewing import view
from saccade.data.writing import Output

CATEGORIES = [{"id": 90, "name": "cat", "isthing": 1}, {"id": 4, "name": "grass", "isthing": 0}, {"id": 7, "name": "dog"}]


def colours(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)


def made(
    root: Path,
    ids: list[list[int]],
    segments: list[dict[str, Any]],
    *,
    annotation: Any = None,
    json_at: str = "annotations/panoptic_val.json",
) -> Path:
    """A set of one image in `val/`, with the map and the segments given."""
    values = np.array(ids)
    folder = (root / json_at).with_suffix("")
    for place in (folder, root / "val"):
        place.mkdir(parents=True)
    Image.fromarray(np.full((*values.shape, 3), 99, np.uint8)).save(root / "val/a.png")
    Image.fromarray(colours(values)).save(folder / "a.png")
    row = {"image_id": 1, "file_name": "a.png", "segments_info": segments} | (annotation or {})
    height, width = values.shape
    images = [{"id": 1, "file_name": "a.png", "height": height, "width": width}]
    (root / json_at).write_text(json.dumps({"images": images, "annotations": [row], "categories": CATEGORIES}))
    return root


def segment(identity: Any, category: Any = 90, **more: Any) -> dict[str, Any]:
    return {"id": identity, "category_id": category, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1} | more


def test_a_small_set(tmp_path: Path) -> None:
    """Ids with holes, of all three bytes, a crowd, a category without isthing, void; the image is not taken for its own mask."""
    big = 5 + 256 * 77 + 65536 * 200
    made(tmp_path, [[big, big, 3, 0], [big, 8, 8, 0]], [segment(big), segment(3, 4), segment(8, 7, iscrowd=1)])
    found = open_annotations(tmp_path)
    assert (found.format, found.task, found.classes, found.ids, found.stuff) == (
        "coco_panoptic", "panoptic", ("grass", "dog", "cat"), (4, 7, 90), (0,),
    )  # fmt: skip
    (item,) = found.items
    assert (item.path, item.split, item.size, found.problems) == ("val/a.png", "val", (2, 4), ())
    target = open_dataset(tmp_path)[0].target
    assert target.labels.tolist() == [2, 0, 1] and target.crowd.tolist() == [False, False, True]
    drawn = [run_lengths.to_mask(mask).astype(int).tolist() for mask in target.masks]
    assert drawn == [[[1, 1, 0, 0], [1, 0, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 1, 1, 0]]]
    assert target.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 3, 1], [1, 1, 3, 2]], "those of the pixels, whatever is stated"
    assert coco_panoptic.fits(FolderTree(tmp_path)) == ("panoptic", "instances", "segment")
    things = open_annotations(tmp_path, task="instances")
    assert (things.classes, things.ids, things.stuff, len(things.items[0].objects)) == (("dog", "cat"), (7, 90), (), 2)
    classes = open_dataset(tmp_path, task="segment")
    assert classes[0].target.tolist() == [[2, 2, 0, IGNORED], [2, 1, 1, IGNORED]] and classes.schema.multi is False


def test_a_grey_map_names_no_segments(tmp_path: Path) -> None:
    """Ids whose three bytes are equal are read as ids too."""
    same = 7 + 256 * 7 + 65536 * 7
    made(tmp_path, [[same, same]], [segment(same)])
    assert run_lengths.covered(open_dataset(tmp_path)[0].target.masks[0]) == 2


def test_masks_beside_the_file_and_under_other_names(tmp_path: Path) -> None:
    made(tmp_path / "a", [[5]], [segment(5)], json_at="annotations/val.json")
    made(tmp_path / "b", [[5]], [segment(5)], json_at="panoptic_val.json")
    for name in "ab":
        found = open_annotations(tmp_path / name)
        assert found.format == "coco_panoptic" and not found.problems and len(found.items) == 1, name
        assert found.items[0].path == "val/a.png"


def test_the_excerpt_of_coco(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    source = unpacked("coco-excerpt")
    for part in ("images", "panoptic"):
        shutil.copytree(source / part, tmp_path / part)
    found = open_annotations(tmp_path)
    assert (found.format, found.task, len(found.classes), len(found.stuff), found.problems) == ("coco_panoptic", "panoptic", 133, 53, ())
    assert Counter(item.split for item in found.items for _ in item.objects) == {"train": 304, "val": 341}
    dataset = open_dataset(tmp_path)
    place = dataset.paths.index("images/val2017/000000000785.jpg")
    target = dataset[place].target
    pixels = np.asarray(Image.open(tmp_path / "panoptic/panoptic_val2017/000000000785.png")).astype(int)
    covered = np.sum([run_lengths.to_mask(mask) for mask in target.masks], axis=0)
    np.testing.assert_array_equal(covered, (pixels @ [1, 256, 65536] != 0).astype(int))
    raw = json.loads((tmp_path / "panoptic/panoptic_val2017.json").read_text())
    (row,) = [row for row in raw["annotations"] if row["image_id"] == 785]
    assert [run_lengths.covered(mask) for mask in target.masks] == [one["area"] for one in row["segments_info"]]
    assert [dataset.schema.ids[label] for label in target.labels] == [one["category_id"] for one in row["segments_info"]]
    things = open_annotations(tmp_path, task="instances")
    assert len(things.classes) == 80 and sum(len(item.objects) for item in things.items) == 420
    assert open_annotations(tmp_path, task="detect").classes == things.classes


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back(seed: int, tmp_path: Path) -> None:
    """Objects of any shape, laid over one another, with crowds, splits and ids with holes; in an archive too."""
    rng = np.random.default_rng(seed)
    items, size = [], (17, 11)
    for number, split in enumerate(("train", "val", "")):
        path = tmp_path / f"in/{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
        covers = [run_lengths.from_mask(rng.random(size) < 0.3) for _ in range(number * 3)]
        objects = tuple(Object(int(rng.integers(3)), shape=cover, crowd=bool(rng.random() < 0.3)) for cover in covers)
        items.append(Item(File(f"{number}.png", 1, 0), split, objects=objects))
    source = Annotations("x", "panoptic", ("cat", "grass", "dog"), tuple(items), FolderTree(tmp_path / "in"), ids=(3, 1, 17), stuff=(1,))
    out = tmp_path / "out"
    out.mkdir()
    coco_panoptic.write(source, Output(out, source))
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        for file in out.rglob("*.*"):
            archive.write(file, file.relative_to(out))
    for place in (out, tmp_path / "out.zip"):
        dataset = open_dataset(place, task="panoptic")
        again = dataset.annotations
        assert again.problems == () and [item.split for item in sorted(again.items, key=lambda item: item.path[-5:])] == [
            "train",
            "val",
            "",
        ]
        assert dict(zip(again.classes, again.ids, strict=True)) == {"cat": 3, "grass": 1, "dog": 17}
        assert [again.classes[label] for label in again.stuff] == ["grass"]
        for index, item in enumerate(again.items):
            before = items[int(item.path[-5])]
            top = np.full(size, -1)
            for number, one in enumerate(before.objects):
                top[run_lengths.to_mask(one.shape)] = number  # type: ignore[arg-type]
            kept = [number for number in range(len(before.objects)) if (top == number).any()]
            target = dataset[index].target
            assert [again.classes[label] for label in target.labels] == [source.classes[before.objects[n].label] for n in kept]
            assert target.crowd.tolist() == [before.objects[number].crowd for number in kept]
            for number, mask in zip(kept, target.masks, strict=True):
                np.testing.assert_array_equal(run_lengths.to_mask(mask), top == number)


@pytest.mark.parametrize(
    ("segments", "change", "code", "words"),
    [
        ([segment(5), segment(5)], {}, "duplicate-id", "stands twice"),
        ([segment(5, 999)], {}, "unknown-class", "no category has the id 999"),
        ([segment(0)], {}, "bad-annotation", "an id must be 1 to 16777215, was 0"),
        ([segment(1 << 24)], {}, "bad-annotation", "an id must be"),
        ([segment("5")], {}, "bad-annotation", "an id must be"),
        (["x"], {}, "bad-annotation", "must have an id"),
        ([segment(5, bbox="x")], {}, "bad-annotation", ""),
        ([segment(5)], {"file_name": "b.png"}, "missing-mask", "'b.png' is not there"),
        ([segment(5)], {"file_name": None}, "bad-annotation", "must have a file_name"),
        ([segment(5)], {"segments_info": {}}, "bad-annotation", "must have a file_name and segments_info"),
        ([segment(5)], {"image_id": 9}, "unknown-image", "no image has the id 9"),
    ],
)
def test_what_cannot_be_right(tmp_path: Path, segments: list[Any], change: dict[str, Any], code: str, words: str) -> None:
    made(tmp_path, [[5, 5]], segments, annotation=change)
    found = open_annotations(tmp_path)
    (problem,) = found.problems
    assert problem.code == code and words in problem.message and problem.path == "annotations/panoptic_val.json"


def test_names_of_things_are_those_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blanks around them, or numbers; a category without a name is named as such."""
    rows = [{"id": 1, "name": "a ", "isthing": 1}, {"id": 2, "name": 7, "isthing": 1}, {"id": 3, "name": "c", "isthing": 0}]
    monkeypatch.setattr(f"{__name__}.CATEGORIES", [*rows, {"id": 4, "isthing": 1}, "x"])
    found = open_annotations(made(tmp_path, [[5, 6]], [segment(5, 1), segment(6, 2)]))
    assert (found.classes, found.stuff, len(found.problems)) == (("a", "7", "c"), (2,), 2)


def test_an_image_has_its_segments_once(tmp_path: Path) -> None:
    file = made(tmp_path, [[5, 6]], [segment(5), segment(6, 4)]) / "annotations/panoptic_val.json"
    raw = json.loads(file.read_text())
    file.write_text(json.dumps({**raw, "annotations": raw["annotations"] * 2}))
    found = open_annotations(tmp_path)
    (problem,) = found.problems
    assert problem.code == "duplicate-id" and "the segments of 'val/a.png' stand twice" in problem.message
    assert len(found.items[0].objects) == 2


@pytest.mark.parametrize("count", [255, 256])
def test_as_many_classes_as_a_mask_holds(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CATEGORIES", [{"id": number, "name": str(number)} for number in range(1, count + 1)])
    made(tmp_path, [[5, 0]], [segment(5, count)])
    assert open_dataset(tmp_path)[0].target.labels.tolist() == [count - 1]
    if count == 255:
        assert open_dataset(tmp_path, task="segment")[0].target.tolist() == [[254, IGNORED]]
    else:
        with pytest.raises(UserError, match="a mask holds at most 255 classes, these are 256"):
            open_dataset(tmp_path, task="segment")


def test_pixels_of_no_segment_and_segments_of_no_pixel(tmp_path: Path) -> None:
    """`data check` names both, and what `--fix` writes is clean."""
    made(tmp_path / "in", [[5, 6, 6], [5, 0, 0]], [segment(5), segment(9, 4)])
    found = doctor.examine(open_annotations(tmp_path / "in"), progress=Silent()).findings
    assert {one.code: one.message for one in found if one.code in ("mask-value", "empty-mask")} == {
        "mask-value": "2 pixels are of no segment that is listed: #060000",
        "empty-mask": "annotations/panoptic_val/a.png: the mask has no pixels",
    }
    told = data.check(tmp_path / "in", fix=tmp_path / "out", progress=Silent())
    assert told["errors"] >= 1
    again = doctor.examine(open_annotations(tmp_path / "out"), progress=Silent()).findings
    assert not [one for one in again if one.code in ("mask-value", "empty-mask")]


def test_a_set_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no panoptic annotations"):
        formats.find("coco_panoptic").read(FolderTree(tmp_path), "panoptic")
    assert coco_panoptic.fits(FolderTree(tmp_path)) == ()


def test_a_page_of_it(tmp_path: Path) -> None:
    data.make("shapes", task="panoptic", n=18, size=(24, 32), out=tmp_path / "set")
    found = open_annotations(tmp_path / "set")
    assert (found.task, found.stuff, found.classes[-1]) == ("panoptic", (6, 7, 8), "stripes")
    view(found, tmp_path / "page", progress=Silent())
    script = (tmp_path / "page/pages/1.js").read_text()
    assert script.count('"rings"') == sum(len(item.objects) for item in found.items)


@pytest.mark.parametrize("name", [name for name in formats.NAMES if "segment" in formats.find(name).TASKS])
def test_it_becomes_a_set_of_classes_of_pixels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "layers":  # which holds seven classes
        for module in (drawing, scenes):
            monkeypatch.setattr(module, "SHAPES", drawing.SHAPES[:3])
        monkeypatch.setattr(scenes, "_scene", scenes._scene.__wrapped__)
    data.make("shapes", task="panoptic", n=18, size=(24, 32), out=tmp_path / "set")
    told = data.convert(tmp_path / "set", tmp_path / "out", to=name, task="segment")
    assert told["lost"] == [] and told["written"]["images"] == 18
    before, after = open_dataset(tmp_path / "set", task="segment"), open_dataset(tmp_path / "out", task="segment")
    assert after.schema.classes == before.schema.classes and after.schema.images == before.schema.images
    own = {path.rpartition("/")[2].rpartition(".")[0]: place for place, path in enumerate(before.paths)}
    for place, path in enumerate(after.paths):
        wanted, got = before[own[path.rpartition("/")[2].rpartition(".")[0]]].target, after[place].target
        np.testing.assert_array_equal(got, np.uint8(1) << wanted.astype(np.uint8) if after.annotations.multi else wanted)


def test_nine_classes_become_no_layers(tmp_path: Path) -> None:
    data.make("shapes", task="panoptic", n=18, size=(24, 32), out=tmp_path / "set")
    with pytest.raises(UserError, match="classes that overlap must be at most 7, was 9"):
        data.convert(tmp_path / "set", tmp_path / "out", to="layers", task="segment")


def test_its_things_become_a_set_of_objects(tmp_path: Path) -> None:
    data.make("shapes", task="panoptic", n=18, size=(24, 32), out=tmp_path / "set")
    told = data.convert(tmp_path / "set", tmp_path / "out", to="coco", task="instances")
    found = open_annotations(tmp_path / "out")
    assert (
        told["lost"] == []
        and (found.task, found.format) == ("instances", "coco")
        and not {"checks", "plain", "stripes"} & set(found.classes)
    )
    with pytest.raises(UserError, match="coco holds sets for detect and instances, this one is for panoptic"):
        data.convert(tmp_path / "set", tmp_path / "none", to="coco")
