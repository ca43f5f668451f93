"""Records of images: metadata.jsonl, Parquet and WebDataset's shards. All comes back, and what is wrong is said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.formats.labelled import close, codes, folder, labelled_sets, mutated, on_disk, picture, plain, said, sets, written
from saccade.core import class_masks
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data import formats, shapes
from saccade.data.annotations import Annotations, Item, Legend, Object
from saccade.data.cache import Preparation, load
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.pictures import stem
from saccade.data.tree import FolderTree

FORMATS = ("metadata", "parquet", "webdataset")
PACKED = ("parquet", "webdataset")


def keyed(found: Mapping[str, Any]) -> dict[str, Any]:
    """By names as a WebDataset's keys can hold them."""
    return {name.replace(".", "_"): value for name, value in found.items()}


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_labels_come_back(name: str, multi: bool, data: Any) -> None:
    with folder() as place:
        source = data.draw(labelled_sets(place / "in", multi=multi))
        output = written(source, name, place / "out")
        found = open_annotations(place / "out", format=name, task="classify")
        assert not found.problems and found.multi == multi
        assert keyed(said(found)) == keyed(said(source, output)) or _bytes_in(source)


@pytest.mark.parametrize("task", ["detect", "instances"])
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_objects_come_back(name: str, task: str, data: Any) -> None:
    with folder() as place:
        source = on_disk(place / "in", task, data.draw(sets(formats.find(name).HOLDS, task)))
        output = written(source, name, place / "out")
        found = open_annotations(place / "out", format=name, task=task)
        assert not found.problems
        assert close(keyed(plain(found, ndigits=9)), keyed(plain(source, output, ndigits=9)), 1e-6) or _bytes_in(source)


def _bytes_in(source: Annotations) -> bool:
    """Whether a name is no valid UTF-8, which neither Parquet nor JSON holds."""
    return any("\udce9" in item.path for item in source.items)


def masked(root: Path) -> Annotations:
    """Three images with masks of three classes, one pixel of each without any."""
    items = []
    for number in range(3):
        picture(root / f"{number}.png", (17, 11))
        values = np.arange(17 * 11, dtype=np.uint8).reshape(17, 11) % 3
        values[0, 0] = 255
        (root / f"{number}.mask").write_bytes(class_masks.png(values))
    tree = FolderTree(root)
    for number, split in enumerate(("train", "val", "")):
        file = tree.find(f"{number}.png")
        assert file
        items.append(Item(file, split, mask=f"{number}.mask"))
    legend = Legend({0: 0, 1: 1, 2: 2}, ignored=frozenset({255}))
    return Annotations("made", "segment", ("sky", "a road", "犬"), tuple(items), tree, legend=legend)


@pytest.mark.parametrize("name", PACKED)
def test_masks_come_back(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    source = masked(tmp_path / "in")
    written(source, name, tmp_path / "out")
    found = open_annotations(tmp_path / "out")
    assert (found.format, found.task, found.classes) == (name, "segment", source.classes)
    assert sorted(item.split for item in found.items) == ["", "train", "val"]
    for item in found.items:
        assert np.array_equal(shapes.classes_of(item, found), shapes.classes_of(source.items[0], source))
    dataset = open_dataset(tmp_path / "out")
    assert dataset[0].image.shape == (17, 11, 3) and dataset[0].target.shape == (17, 11)


@pytest.mark.parametrize("name", PACKED)
def test_images_alone_come_back(tmp_path: Path, name: str) -> None:
    for number in range(3):
        picture(tmp_path / f"in/{number}.png", (17, 11))
    source = open_annotations(tmp_path / "in")
    assert (source.format, source.task) == ("images", "generate")
    written(source, name, tmp_path / "out")
    found = open_annotations(tmp_path / "out")
    assert (found.format, found.task, len(found.items), found.classes) == (name, "generate", 3, ())


@pytest.mark.parametrize("name", PACKED)
def test_pixels_come_back_through_the_cache_and_a_change_is_seen(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    for number in range(250):  # several row groups
        place = tmp_path / f"in/{'ab'[number % 2]}/{number:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).save(place)
    source = open_dataset(tmp_path / "in")
    written(source.annotations, name, tmp_path / "out")
    found = open_dataset(tmp_path / "out")
    names = {stem(path.rpartition("/")[2]): place for place, path in enumerate(found.paths)}
    store, bad = load(found, np.arange(250), Preparation("as they are", lambda pixels: pixels), progress=Silent(), workers=3)
    assert not bad
    for place, path in enumerate(source.paths):
        assert np.array_equal(store[names[stem(path.rpartition("/")[2])]], source[place].image)
        assert np.array_equal(found[names[stem(path.rpartition("/")[2])]].image, source[place].image)
    packed = next(path for path in (tmp_path / "out").iterdir() if path.suffix in (".tar", ".parquet"))
    packed.write_bytes(packed.read_bytes() + b"\0" * 512)
    _, bad = load(found, np.arange(250), Preparation("once more", lambda pixels: pixels), progress=Silent())
    assert len(bad) == 250 and "has changed since" in bad[0].reason


@pytest.mark.parametrize("name", FORMATS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_damaged_files_end_in_one_line_or_findings(name: str, seed: int) -> None:
    with folder() as place:
        source = on_disk(
            place / "in", "detect", (("cat", "dog"), {"1.png": ((17, 11), "train", [Object(0, (1, 2, 3, 4)), Object(1, (2, 2, 5, 5))])})
        )
        written(source, name, place / "out")
        (file,) = [path for path in (place / "out").rglob("*") if path.suffix in (".jsonl", ".parquet", ".tar")]
        file.write_bytes(mutated(file.read_bytes(), seed))
        with contextlib.suppress(UserError):
            found = open_dataset(place / "out", format=name, task="detect")
            assert all("\n" not in str(problem) for problem in found.annotations.problems)
            for number in range(len(found)):
                found[number]


# metadata.jsonl


def lines(root: Path, rows: Sequence[Any], at: str = "train/metadata.jsonl") -> Annotations:
    for number in range(1, 4):
        picture(root / f"train/{number}.png", (17, 11))
    (root / at).write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return open_annotations(root)


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"file_name": "1.png", "label": "cat"}, "classify"),
        ({"file_name": "1.png", "label": 3}, "classify"),
        ({"file_name": "1.png", "labels": ["cat", "dog"]}, "classify"),
        ({"file_name": "1.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [0]}}, "detect"),
        ({"file_name": "1.png", "objects": [{"bbox": [1, 2, 3, 4], "category": "cat"}]}, "detect"),
        (
            {"file_name": "1.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": ["a"], "segmentation": [[[1, 1, 5, 1, 5, 5]]]}},
            "instances",
        ),
    ],
)
def test_records_as_hugging_face_describes_them(tmp_path: Path, row: Any, task: str) -> None:
    found = lines(tmp_path, [row])
    assert (found.format, found.task, found.problems) == ("metadata", task, ())
    (item,) = found.items
    assert (item.path, item.split, item.line) == ("train/1.png", "train", 1)
    if task != "classify":
        assert item.objects[0].box == (1, 2, 4, 6)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("{rubbish", "bad-annotation"),
        ("[1]", "bad-annotation"),
        ({"label": "cat"}, "bad-annotation"),
        ({"file_name": "9.png", "label": "cat"}, "missing-image"),
        ({"file_name": "1.png", "label": "cat"}, "repeated-image"),
        ({"file_name": "2.png", "label": {}}, "bad-annotation"),
        ({"file_name": "2.png"}, "bad-annotation"),
    ],
)
def test_a_record_that_cannot_be_right(tmp_path: Path, row: Any, code: str) -> None:
    found = lines(tmp_path, [{"file_name": "1.png", "label": "cat"}, row])
    assert codes(found) == [code] and found.problems[0].line == 2 and len(found.items) == 1


@pytest.mark.parametrize(
    ("objects", "code"),
    [
        ({"bbox": [[1, 2, 3, 4]], "category": [0, 1]}, "bad-annotation"),
        ({"bbox": [[1, 2, 3]], "category": [0]}, "bad-annotation"),
        ({"bbox": [[1, 2, 3, 1e999]], "category": [0]}, "bad-annotation"),
        ({"bbox": [None], "category": [0]}, "bad-annotation"),
        ({"bbox": [[1, 2, 3, 4]]}, "bad-annotation"),
        ([3], "bad-annotation"),
        ("x", "bad-annotation"),
    ],
)
def test_objects_that_cannot_be_right(tmp_path: Path, objects: Any, code: str) -> None:
    good = {"file_name": "1.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": [0]}}
    found = lines(tmp_path, [good, json.dumps({"file_name": "2.png", "objects": objects}).replace("Infinity", "1e999")])
    assert codes(found) == [code] and found.problems[0].line == 2


# Parquet


def parquet(path: Path, rows: list[dict[str, Any]], schema: Any = None, metadata: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def png(tmp_path: Path, size: tuple[int, int] = (17, 11)) -> bytes:
    return picture(tmp_path / "x.png", size).read_bytes()


def test_parquet_as_the_hub_has_it(tmp_path: Path) -> None:
    names = json.dumps({"info": {"features": {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}})
    rows = [{"img": {"bytes": png(tmp_path), "path": None}, "label": number % 2} for number in range(3)]
    parquet(tmp_path / "set/data/train-00000-of-00001.parquet", rows, metadata={"huggingface": names})
    parquet(tmp_path / "set/data/test-00000-of-00001.parquet", rows[:1], metadata={"huggingface": names})
    found = open_annotations(tmp_path / "set")
    assert (found.format, found.task, found.classes, found.problems) == ("parquet", "classify", ("cat", "dog"), ())
    assert [item.split for item in found.items] == ["test", "train", "train", "train"]
    assert found.items[1].path == "data/train-00000-of-00001.parquet/0000000/0.png"
    assert open_dataset(tmp_path / "set")[1].image.shape == (17, 11, 3)


def test_parquet_of_plain_bytes_and_of_paths(tmp_path: Path) -> None:
    parquet(tmp_path / "1/a.parquet", [{"image": png(tmp_path), "label": "cat"}, {"image": png(tmp_path), "label": "dog"}])
    found = open_annotations(tmp_path / "1")
    assert [found.classes[item.labels[0]] for item in found.items] == ["cat", "dog"]
    picture(tmp_path / "2/train/7.png", (17, 11))
    parquet(tmp_path / "2/train/metadata.parquet", [{"file_name": "7.png", "label": "cat"}, {"file_name": "8.png", "label": "cat"}])
    found = open_annotations(tmp_path / "2")
    assert [item.path for item in found.items] == ["train/7.png"] and codes(found) == ["missing-image"]


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 rubbish PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: is no Parquet file") as caught:
        open_annotations(tmp_path, format="parquet")
    assert "\n" not in str(caught.value)
    parquet(tmp_path / "b/b.parquet", [{"x": 1}])
    with pytest.raises(UserError, match="holds no Parquet with images"):
        open_annotations(tmp_path / "b", format="parquet", task="classify")


def test_a_row_without_a_picture_is_named(tmp_path: Path) -> None:
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.string())])
    rows = [{"image": {"bytes": png(tmp_path), "path": "a.png"}, "label": "a"}, {"image": {"bytes": None, "path": "b.png"}, "label": "b"}]
    parquet(tmp_path / "set/a.parquet", rows, schema)
    found = open_dataset(tmp_path / "set")
    with pytest.raises(UserError, match=r"0000001/b\.png: holds no picture"):
        found[1]


def test_a_number_beyond_the_names(tmp_path: Path) -> None:
    names = json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat"]}}}})
    parquet(tmp_path / "set/a.parquet", [{"image": png(tmp_path), "label": n} for n in (0, 1, -1)], metadata={"huggingface": names})
    found = open_annotations(tmp_path / "set")
    assert codes(found) == ["unknown-class", "unknown-class"] and len(found.items) == 1


# WebDataset


def shard(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_shards_as_others_write_them(tmp_path: Path) -> None:
    image = png(tmp_path)
    first = [("000.jpg", image), ("000.cls", b"1"), ("001.jpg", image), ("001.cls", b"0\n"), ("001.txt", b"a caption")]
    shard(tmp_path / "set/train-000.tar", first)
    shard(tmp_path / "set/train-001.tar", [("./in/002.JPG", image), ("./in/002.cls", b"1")])
    shard(tmp_path / "set/val/000.tar", [("000.png", image), ("000.json", b'{"label": 1, "width": 11, "height": 17}')])
    (tmp_path / "set/classes.txt").write_text("cat\ndog\n")
    found = open_annotations(tmp_path / "set")
    assert (found.format, found.task, found.classes, found.problems) == ("webdataset", "classify", ("cat", "dog"), ())
    assert [(item.path, item.split, item.labels) for item in found.items] == [
        ("train-000.tar/000.jpg", "train", (1,)),
        ("train-000.tar/001.jpg", "train", (0,)),
        ("train-001.tar/in/002.JPG", "train", (1,)),
        ("val/000.tar/000.png", "val", (1,)),
    ]


def test_one_shard_by_itself(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", [("0.png", png(tmp_path)), ("0.cls", b"cat"), ("1.png", png(tmp_path)), ("1.cls", b"dog")])
    found = open_annotations(path)
    assert (found.format, found.classes, len(found.items)) == ("webdataset", ("cat", "dog"), 2)


def test_shards_with_images_and_captions_are_images_to_learn_from(tmp_path: Path) -> None:
    row = json.dumps({"caption": "a cat", "url": "https://example.org/1.png", "status": "success"}).encode()
    shard(tmp_path / "set/00000.tar", [("000000000.png", png(tmp_path)), ("000000000.json", row), ("000000000.txt", b"a cat")])
    found = open_annotations(tmp_path / "set")
    assert (found.format, found.task, len(found.items)) == ("webdataset", "generate", 1)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ([("1.cls", b"7")], ["unknown-class"]),
        ([("1.json", b"{")], ["bad-annotation"]),
        ([("1.json", b"[]")], ["bad-annotation"]),
        ([("1.cls", b" ")], ["bad-annotation"]),
        ([], ["bad-annotation"]),
    ],
)
def test_samples_that_cannot_be_right(tmp_path: Path, files: Sequence[tuple[str, bytes]], wanted: Sequence[str]) -> None:
    image = png(tmp_path)
    shard(tmp_path / "set/train.tar", [("0.png", image), ("0.cls", b"0"), ("1.png", image), *files])
    (tmp_path / "set/classes.txt").write_text("cat\ndog\n")
    found = open_annotations(tmp_path / "set")
    assert codes(found) == wanted and [item.path for item in found.items] == ["train.tar/0.png"]


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    whole = shard(tmp_path / "x.tar", [("0.png", png(tmp_path)), ("0.cls", b"0")]).read_bytes()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.tar").write_bytes(whole[:700])
    with pytest.raises(UserError, match=r"train\.tar"):
        open_annotations(tmp_path / "set", format="webdataset")


def test_the_same_set_makes_the_same_shards(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"in/{'ab'[number % 2]}/{number}.png", (17, 11))
    source = open_annotations(tmp_path / "in")
    sums = []
    for out in ("1", "2"):
        written(source, "webdataset", tmp_path / out)
        sums.append(hashlib.sha256((tmp_path / out / "train-000000.tar").read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_large_sets_become_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        picture(tmp_path / f"in/{'ab'[number % 2]}/{number}.png", (17, 11))
    source = open_annotations(tmp_path / "in")
    size = (tmp_path / "in/a/0.png").stat().st_size
    monkeypatch.setattr("saccade.data.formats.webdataset.SHARD_BYTES", 2 * size)
    monkeypatch.setattr("saccade.data.formats.parquet.FILE_BYTES", 2 * size)
    monkeypatch.setattr("saccade.data.formats.parquet.GROUP_IMAGES", 1)
    for name, ending in (("webdataset", ".tar"), ("parquet", ".parquet")):
        written(source, name, tmp_path / name)
        assert len(list((tmp_path / name).glob(f"train-*{ending}"))) == 4
        assert len(open_annotations(tmp_path / name).items) == 7


def test_shards_in_another_archive_are_refused(tmp_path: Path) -> None:
    inner = shard(tmp_path / "in.tar", [("0.png", png(tmp_path)), ("0.cls", b"0")]).read_bytes()
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("train.tar", inner)
    with pytest.raises(UserError, match=r"train\.tar: is an archive inside of another .unpack the outer one"):
        open_annotations(tmp_path / "out.zip")
