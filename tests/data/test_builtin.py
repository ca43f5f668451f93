from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.core import run_lengths
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data import builtin, drawing
from saccade.data.builtin import make_shapes, write_digits
from saccade.data.drawing import GROUNDS, SHAPES, draw_scene, draw_shape
from saccade.data.opening import open_dataset


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_shapes_on_disk_are_as_told(tmp_path: Path) -> None:
    out = tmp_path / "shapes"
    told = make_shapes(out, n=125, size=(17, 31), seed=3, progress=Silent())
    truth = json.loads((out / "truth.json").read_text())["images"]
    assert names(out) == set(truth)
    assert told["images"] == len(truth) == 125
    assert told["classes"] == list(SHAPES) == sorted(SHAPES)
    by_split = Counter(name.split("/")[0] for name in truth)
    assert told["splits"] == dict(by_split)
    assert by_split["val"] == by_split["test"] == 18
    per_class = Counter(name.split("/")[1] for name in truth)
    assert max(per_class.values()) - min(per_class.values()) <= 1
    for name, entry in truth.items():
        assert name.split("/")[1] == entry["class"]
        with Image.open(out / name) as image:
            assert image.size == (31, 17)
            assert image.mode == "RGB"
        x, y = entry["center"]
        assert entry["radius"] - 0.01 <= x <= 31 - entry["radius"] + 0.01
        assert entry["radius"] - 0.01 <= y <= 17 - entry["radius"] + 0.01
    assert sorted(os.listdir(tmp_path)) == ["shapes"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_image_depends_on_seed_and_index_alone(tmp_path: Path) -> None:
    make_shapes(tmp_path / "few", n=18, size=(9, 8), seed=5)
    make_shapes(tmp_path / "many", n=60, size=(9, 8), seed=5)
    few, many = ({Path(n).name: np.asarray(Image.open(tmp_path / f / n)) for n in names(tmp_path / f)} for f in ("few", "many"))
    assert set(few) < set(many)
    for name, pixels in few.items():
        np.testing.assert_array_equal(pixels, many[name])
        np.testing.assert_array_equal(pixels, draw_shape(int(name[:5]) - 1, size=(9, 8), seed=5)[0])
    assert not np.array_equal(draw_shape(0, size=(9, 8), seed=5)[0], draw_shape(0, size=(9, 8), seed=6)[0])
    assert len({draw_shape(i, size=(9, 8), seed=5)[0].tobytes() for i in range(60)}) == 60


@pytest.mark.parametrize("index", range(6))
def test_the_truth_is_where_the_shape_is(index: int) -> None:
    """Measured from the outline: area by class, middle of mass, and turning the shape back to upright."""
    shape = drawing.Shape(SHAPES[index], (40.25, 52.5), 30.0, 200.0)
    cover = np.clip(0.5 - drawing._distance(shape, (96, 80)), 0, 1)
    area = {
        "circle": np.pi, "ring": 0.75 * np.pi, "square": 2.0, "triangle": 3**1.5 / 4, "star": 10 * 0.42 * np.sin(np.pi / 5) / 2,
        "cross": 8 * 0.32 * (1 - 0.32**2) ** 0.5 - 4 * 0.32**2,
    }[shape.name]  # fmt: skip
    assert cover.sum() == pytest.approx(area * 900, rel=0.02)
    rows, columns = np.mgrid[0:96, 0:80] + 0.5
    assert (cover * columns).sum() / cover.sum() == pytest.approx(40.25, abs=0.3)
    assert (cover * rows).sum() / cover.sum() == pytest.approx(52.5, abs=0.3)


def test_angle_turns_clockwise() -> None:
    """Upright, a triangle points up; at 90 degrees it points right."""
    for angle, pixel in ((0.0, (6, 32)), (90.0, (32, 57)), (180.0, (57, 32)), (270.0, (32, 6))):
        distance = drawing._distance(drawing.Shape("triangle", (32.5, 32.5), 28, angle), (65, 65))
        tips = [distance[6, 32], distance[32, 57], distance[57, 32], distance[32, 6]]
        assert distance[pixel] == min(tips) < 0
        assert sorted(tips)[1] > 0


def test_figure_and_ground_differ() -> None:
    for index in range(120):
        pixels, shape = draw_shape(index, size=(48, 48), seed=1)
        distance = drawing._distance(shape, (48, 48))
        inside, outside = pixels[distance < -1], pixels[distance > 1]
        assert np.linalg.norm(inside.mean(0) - outside.mean(0)) > 45


def test_scenes_of_things_and_stuff(tmp_path: Path) -> None:
    """Every pixel is in one segment: the shapes of scenes without kinds of ground, and what is seen of each kind below them."""
    told = make_shapes(tmp_path / "s", task="panoptic", n=24, size=(40, 56), seed=2)
    dataset, kinds = open_dataset(tmp_path / "s"), Counter[int]()
    assert dataset.annotations.format == "coco_panoptic" and told["classes"] == list(dataset.schema.classes) == [*SHAPES, *GROUNDS]
    assert dataset.schema.stuff == (6, 7, 8) and told["splits"] == {"train": 12, "val": 6, "test": 6} == dict(dataset.schema.images)
    for place in range(24):
        sample = dataset[place]
        index = int(Path(sample.source).stem) - 1
        scene, plain = (draw_scene(index, size=(40, 56), seed=2, kinds=kinds) for kinds in (True, False))
        np.testing.assert_array_equal(sample.image, scene.pixels)
        masks = [run_lengths.to_mask(mask) for mask in sample.target.masks]
        assert (np.sum(masks, 0) == 1).all()
        shapes = [mask for mask, label in zip(masks, sample.target.labels, strict=True) if label < len(SHAPES)]
        np.testing.assert_array_equal(shapes, [mask for _, mask in plain.shapes])
        for mask, label in zip(masks, sample.target.labels.tolist(), strict=True):
            assert label < len(SHAPES) or (scene.below[mask] == label - len(SHAPES)).all()
        stuff = [label for label in sample.target.labels.tolist() if label >= len(SHAPES)]
        assert 1 <= len(stuff) == len(set(stuff)) <= 2
        kinds.update(stuff)
    assert set(kinds) == {6, 7, 8} and sum(kinds.values()) > 30, "most have two kinds"


def test_kinds_of_ground_look_different() -> None:
    """The spread of the grey values of what is seen of each."""
    found: dict[str, list[float]] = {name: [] for name in GROUNDS}
    for index in range(60):
        scene = draw_scene(index, size=(96, 96), seed=3, kinds=True)
        free = ~np.any([mask for _, mask in scene.shapes], axis=0)
        grey = scene.pixels.mean(2)
        for kind, name in enumerate(GROUNDS):
            where = free & (scene.below == kind)
            if where.sum() > 500:
                found[name].append(float(grey[where].std()))
    medians = {name: float(np.median(values)) for name, values in found.items()}
    assert min(map(len, found.values())) >= 10 and medians["plain"] < 0.7 * min(medians["checks"], medians["stripes"]), medians


def test_smallest_set_and_smallest_image(tmp_path: Path) -> None:
    told = make_shapes(tmp_path / "s", n=18, size=(8, 8))
    assert told["splits"] == {"train": 6, "val": 6, "test": 6}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 17}, "n must be at least 18"),
        ({"size": (7, 64)}, "size must be 8x8 to 4096x4096 .* was 7x64"),
        ({"size": (64, 5000)}, "was 64x5000"),
        ({"task": "clasify"}, "unknown task of made-up data 'clasify' .did you mean classify"),
    ],
)
def test_wrong_requests_write_nothing(options: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        make_shapes(tmp_path / "s", **options)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_use_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        for make in (lambda out=out: make_shapes(out, n=18, size=(8, 8)), lambda out=out: write_digits(out)):
            with pytest.raises(UserError, match="must be a new or an empty folder"):
                make()
    assert os.listdir(tmp_path) == ["mine.txt"]
    empty = tmp_path / "a" / "empty"
    empty.mkdir(parents=True)
    make_shapes(empty, n=18, size=(8, 8))
    assert len(names(empty)) == 18


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    for make in (lambda: make_shapes(tmp_path / "s", n=18, size=(8, 8)), lambda: write_digits(tmp_path / "s")):
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            make()
    assert os.listdir(tmp_path) == []


def test_digits(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    out = write_digits(tmp_path / "digits")
    assert out == tmp_path / "digits"
    found = names(out)
    test = Counter(name.split("/")[1] for name in found if name.startswith("test/"))
    assert len(found) == 1797
    assert sum(test.values()) == 364
    assert min(test.values()) >= 35
    pictures = Counter()
    for name in found:
        with Image.open(out / name) as image:
            assert (image.mode, image.size) == ("L", (8, 8))
            pictures[name.split("/")[1], np.asarray(image).tobytes()] += 1
    expected = Counter((str(t), np.rint(p * 255 / 16).astype(np.uint8).tobytes()) for p, t in zip(data.images, data.target, strict=True))
    assert pictures == expected


def test_digits_are_kept_when_complete(tmp_path: Path) -> None:
    out = write_digits(tmp_path / "digits")
    one = next(out.rglob("*.png"))
    before = one.stat().st_ino
    assert write_digits(out) == out
    assert one.stat().st_ino == before
    with pytest.raises(UserError, match="must be a new or an empty folder"):
        write_digits(out, size=16)
    data = one.read_bytes()
    for damage in (b"", data[:40], data + b"more"):
        one.write_bytes(damage)
        if damage.startswith(data):  # the picture is whole
            write_digits(out)
            continue
        with pytest.raises(UserError):
            write_digits(out)
    one.write_bytes(data)
    (out / "train" / "0" / "extra.png").write_bytes(data)
    with pytest.raises(UserError):
        write_digits(out)


def test_digits_enlarged(tmp_path: Path) -> None:
    small, large = builtin._digits(8), write_digits(tmp_path / "28", size=28)
    assert names(large) == set(small)
    name = min(small)
    with Image.open(large / name) as image:
        expected = Image.fromarray(small[name]).resize((28, 28), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    with pytest.raises(UserError, match="must be 8 to 4096 pixels, was 7"):
        write_digits(tmp_path / "7", size=7)
