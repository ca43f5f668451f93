"""The original's answers on disk: what goes in comes out, garbage is one line, and images are found again or named."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.opening import open_dataset
from saccade.evaluation import reference
from saccade.evaluation.reference import FEW, Reference

CARD = Card("classify", ("a", "b"), {"name": "x"}, InputSpec(3, (5, 7), "crop", (0.5,) * 3, (0.5,) * 3))
# Whatever the name of a file can be: any bytes but zero and the slash between folders.
paths = st.lists(st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"\0", b"x")), min_size=1, max_size=3)
names = paths.map(lambda parts: os.fsdecode(b"/".join(parts)))


def made(sources: tuple[str, ...] = ("a/0.png", "b/1.png"), card: Card = CARD) -> Reference:
    generator = np.random.Generator(np.random.Philox(0))
    few = min(len(sources), FEW)
    outputs = {
        (5, 7): {
            "probabilities": generator.random((len(sources), 2), np.float32),
            "map": generator.random((len(sources), 1, 3), np.float32),
        },
        (17, 11): {"probabilities": generator.random((few, 2), np.float32), "map": generator.random((few, 1, 3), np.float32)},
    }
    return Reference(card, sources, tuple(f"{number:064x}" for number in range(len(sources))), outputs)


def same(first: Reference, second: Reference) -> None:
    assert (first.card, first.sources, first.sums) == (second.card, second.sources, second.sums)
    assert list(first.outputs) == list(second.outputs), "the card's own size comes first"
    for size, outputs in first.outputs.items():
        assert set(outputs) == set(second.outputs[size])
        for name, values in outputs.items():
            assert second.outputs[size][name].dtype == np.float32
            assert np.array_equal(values, second.outputs[size][name], equal_nan=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference") / "reference.npz"


def read(place: Path, data: bytes) -> Reference:
    place.write_bytes(data)
    return Reference.read(place)


@given(st.lists(names, min_size=1, max_size=4, unique=True).map(tuple))
@example(("a\nb/ü\udcff.png", "-", "..", "\r\n", "\x1f", "\x85\u2028", "\"<&>'", "猫/🙂.png"))
def test_a_round_trip_keeps_any_path(place: Path, sources: tuple[str, ...]) -> None:
    before = made(sources)
    same(before, read(place, before.to_bytes()))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=4, unique=True).map(tuple))
@example(('<b a="1">&\'\n', "\x00", "\x7f", "猫🙂", os.fsdecode(b"byte\xff")))
def test_a_round_trip_keeps_any_class(place: Path, classes: tuple[str, ...]) -> None:
    before = made(card=Card("classify", classes, {"name": "x"}, CARD.input))
    same(before, read(place, before.to_bytes()))


def test_special_values_survive_and_the_bytes_do_not_depend_on_the_clock(place: Path) -> None:
    values = np.array([[np.nan, np.inf], [-0.0, 1e-45]], np.float32)
    before = Reference(CARD, ("a", "b"), ("0", "1"), {(5, 7): {"probabilities": values}})
    same(before, read(place, before.to_bytes()))
    assert before.to_bytes() == before.to_bytes()


@given(st.binary(max_size=300))
@example(b"")
@example(b"PK\x03\x04")
@example(b"PK\x05\x06" + bytes(18))  # a zip without a member
@example(b"\x80\x04]q\x00.")  # a pickle
def test_garbage_is_one_line(place: Path, data: bytes) -> None:
    with pytest.raises(UserError) as caught:
        read(place, data)
    assert caught.value.where == str(place) and "\n" not in str(caught.value)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.integers(0, 10_000))
@example(4356, b"\x00\x01", 0)
def test_a_damaged_file_is_one_line_or_still_what_it_was(place: Path, at: int, patch: bytes, cut: int) -> None:
    """Zip has a sum of each member: what is read at all is what was written, or is refused."""
    before = made()
    whole = before.to_bytes()
    data = bytearray(whole)
    data[at % len(data) : at % len(data) + len(patch)] = patch
    for damaged in (bytes(data), whole[: cut % len(whole)]):
        try:
            after = read(place, damaged)
        except UserError:
            continue
        same(before, after)


def npy(value: Any) -> bytes:
    data = io.BytesIO()
    np.save(data, value, allow_pickle=True)
    return data.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def parts() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(made().to_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("something was unpickled",))


def words(text: str) -> bytes:
    return npy(np.frombuffer(text.encode(), np.uint8))


OWN = "5x7/probabilities.npy"
HUGE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 999999), }".ljust(117) + b"\n"


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in parts().items() if key != name}


DAMAGED: dict[str, Callable[[], bytes]] = {
    "a pickled array in an archive": lambda: zipped(parts() | {OWN: npy(np.array([Bomb()], object))}),
    "no card": lambda: zipped(without("card.npy")),
    "no sources": lambda: zipped(without("sources.npy")),
    "no sums": lambda: zipped(without("sums.npy")),
    "a card that is none": lambda: zipped(parts() | {"card.npy": words("{}")}),
    "a size that is none": lambda: zipped(parts() | {"axb/probabilities.npy": npy(np.zeros((2, 2), np.float32))}),
    "an array without a size": lambda: zipped(parts() | {"probabilities.npy": npy(np.zeros((2, 2), np.float32))}),
}
# Each of these went past `Reference.read` or out of it as another error than a UserError when this was written.
CRAFTED: dict[str, Callable[[], bytes]] = {
    "one bare array, no archive": lambda: npy(np.zeros(3)),
    "a member that is no array": lambda: zipped(parts() | {OWN: b"no array at all"}),
    "a text that is no array": lambda: zipped(parts() | {"card.npy": b"no array"}),
    "an array larger than memory": lambda: zipped(parts() | {OWN: HUGE}),
    "without its own size": lambda: zipped({key: value for key, value in parts().items() if not key.startswith("5x7")}),
    "fewer sums than sources": lambda: zipped(parts() | {"sums.npy": words("0")}),
    "fewer answers than sources": lambda: zipped(parts() | {OWN: npy(np.zeros((1, 2), np.float32))}),
    "answers without an axis": lambda: zipped(parts() | {OWN: npy(np.float32(0))}),
    "words in place of answers": lambda: zipped(parts() | {OWN: npy(np.array(["a", "b"]))}),
    "no image at all": lambda: zipped(parts() | {"sources.npy": words(""), "sums.npy": words("")}),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_crafted_file_is_one_line(place: Path, how: str) -> None:
    with pytest.raises(UserError) as caught:
        read(place, DAMAGED[how]())
    assert str(place) in str(caught.value)


@pytest.mark.parametrize("how", CRAFTED)
def test_a_file_that_does_not_fit_together_is_one_line(place: Path, how: str) -> None:
    with pytest.raises(UserError):
        read(place, CRAFTED[how]())


def test_a_deflated_member_that_does_not_inflate_is_one_line(place: Path) -> None:
    data = bytearray(zipped(parts(), zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        start = archive.getinfo(OWN).header_offset + 30 + len(OWN)
    data[start : start + 8] = b"\xff" * 8
    with pytest.raises(UserError):
        read(place, bytes(data))


def test_a_folder_or_nothing_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.npz"):
        with pytest.raises(UserError):
            Reference.read(path)


# Answers, and the images found again


class Sums:
    """A session whose answer tells which pixels it saw: the mean and the sides."""

    batch, streams = 4, 1

    def __init__(self) -> None:
        self.card = CARD
        self.seen: list[tuple[int, ...]] = []

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.dtype == np.uint8
        self.seen.append(images.shape)
        return {"means": images.mean(axis=(1, 2, 3))[:, None], "sides": np.tile(images.shape[2:], (len(images), 1))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images of two classes, each of another shade."""
    for number in range(20):
        target = tmp_path / "data" / "train" / ("a", "b")[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9 + number, 12), (number,) * 3).save(target / f"{number:02d} ü.png")
    return tmp_path / "data"


def test_all_images_at_the_first_size_and_a_few_at_the_others(folder: Path) -> None:
    dataset, session = open_dataset(folder), Sums()
    places = np.arange(20)[::-1].copy()
    found = reference.answer(session, dataset, places, [(5, 7), (6, 3)], Silent())
    assert found.sources == tuple(dataset.paths[place] for place in places)
    shades = [int(Path(source).name[:2]) for source in found.sources]
    assert found.outputs[(5, 7)]["means"][:, 0].tolist() == shades
    assert found.outputs[(6, 3)]["means"][:, 0].tolist() == shades[:FEW]
    assert found.outputs[(6, 3)]["means"].dtype == np.float32
    assert found.outputs[(6, 3)]["sides"].tolist() == [[6, 3]] * FEW
    assert session.seen == [(4, 3, 5, 7)] * 5 + [(4, 3, 6, 3)] * 4
    assert found.sums == tuple(reference.file_sum(folder / source) for source in found.sources)


class Maps:
    """A session whose maps are as large as its images; `lost`: rows that it fails to give."""

    card, streams, batch = replace(CARD, input=replace(CARD.input, size=(64, 64), resize="fit")), 1, 4

    def __init__(self, lost: int = 0) -> None:
        self.lost = lost

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        maps = images[:, :2, ::4, ::4].astype(np.float32)
        return {"scores": maps.mean((2, 3)), "maps": maps[self.lost :]}


def test_maps_of_images_of_several_shapes(tmp_path: Path) -> None:
    """Each fills the corner of its row, the rest is 0; too few rows are refused, for maps as for all else."""
    draws = np.random.default_rng(0)
    for number, (height, width) in enumerate([(64, 64), (64, 20), (20, 64), (64, 64)]):
        target = tmp_path / f"{'ab'[number % 2]}/{number}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(draws.integers(1, 255, (height, width, 3), dtype=np.uint8)).save(target)
    dataset, places = open_dataset(tmp_path), np.arange(4)
    found = reference.run(Maps(), dataset, places, (64, 64), Silent())["maps"]  # type: ignore[arg-type]
    assert found.shape == (4, 2, 16, 16)
    for row, picture in zip(found, reference.look(dataset, places, Maps.card.input), strict=True):
        height, width = (side // 4 for side in picture.pixels.shape[1:])
        assert np.array_equal(row[:, :height, :width], picture.pixels[:2, ::4, ::4])
        assert not row[:, height:].any() and not row[:, :, width:].any()
    with pytest.raises(UserError, match="gives 'maps' of shape"):
        reference.run(Maps(lost=1), dataset, places, (64, 64), Silent())  # type: ignore[arg-type]


def test_the_batch_does_not_change_the_answers(folder: Path) -> None:
    dataset, places = open_dataset(folder), np.arange(20)
    one, seven = (reference.run(Sums(), dataset, places, (5, 7), Silent(), batch=batch) for batch in (1, 7))
    assert all(np.array_equal(one[name], seven[name]) for name in one)


def test_images_are_found_again_wherever_the_folder_lies(folder: Path) -> None:
    before = open_dataset(folder)
    kept = reference.answer(Sums(), before, np.array([7, 3, 12]), [(5, 7)], Silent())
    moved = folder.rename(folder.parent / "elsewhere 猫")
    (moved / "train" / "a" / "00 first.png").write_bytes((moved / "train" / "a" / "00 ü.png").read_bytes())  # shifts all places by one
    dataset = open_dataset(moved)
    places = reference.find(kept, dataset)
    assert [dataset.paths[place] for place in places] == list(kept.sources)
    assert places.tolist() == [8, 4, 13]


def test_an_image_that_is_missing_or_has_changed_is_named(folder: Path) -> None:
    kept = reference.answer(Sums(), open_dataset(folder), np.array([7, 3]), [(5, 7)], Silent())
    image = folder / kept.sources[0]
    data = image.read_bytes()
    Image.new("RGB", (9, 12), (9, 9, 10)).save(image)
    with pytest.raises(UserError, match="changed") as caught:
        reference.find(kept, open_dataset(folder))
    assert caught.value.where == str(image)
    image.write_bytes(data)
    reference.find(kept, open_dataset(folder))
    image.unlink()
    with pytest.raises(UserError, match="1 are missing") as caught:
        reference.find(kept, open_dataset(folder))
    assert kept.sources[0] in str(caught.value)


def test_an_image_that_cannot_be_read_is_named(folder: Path) -> None:
    dataset = open_dataset(folder)
    (folder / dataset.paths[3]).write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        reference.answer(Sums(), dataset, np.arange(20), [(5, 7)], Silent())
    assert dataset.paths[3] in caught.value.where
