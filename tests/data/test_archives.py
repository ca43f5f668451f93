"""Archives as data: read in place, equal to the folder they were made of, and nothing hostile gets through."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from saccade.core.errors import UserError
from saccade.data import archives
from saccade.data.archives import open_archive
from saccade.data.opening import open_annotations, open_dataset
from saccade.data.tree import FolderTree

Pack = Callable[[Path, Path], Path]


def stored(folder: Path, to: Path) -> Path:
    return zipped(folder, to, zipfile.ZIP_STORED)


def zipped(folder: Path, to: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(to.with_suffix(".zip"), "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return to.with_suffix(".zip")


def tarred(folder: Path, to: Path) -> Path:
    with tarfile.open(to.with_suffix(".tar"), "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, ".")
    return to.with_suffix(".tar")


@pytest.mark.parametrize("pack", [stored, zipped, tarred])
def test_an_archive_is_its_folder(tiny_folder: Path, tmp_path: Path, pack: Pack) -> None:
    (tiny_folder / "green/.hidden.png").write_bytes(b"x")
    (tiny_folder / "green/deep").mkdir()
    (tiny_folder / "green/deep/ä 犬.txt").write_text("x" * 5000)
    folder, archive = FolderTree(tiny_folder), open_archive(pack(tiny_folder, tmp_path / "set"))
    assert archive.folders() == folder.folders() and archive.folders("green") == ["deep"] and archive.folders("none") == []
    for deep in (False, True):
        for place in ("", "green", "green/deep", "none"):
            expected = [(file.path, file.bytes) for file in folder.files(place, deep=deep)]
            assert [(file.path, file.bytes) for file in archive.files(place, deep=deep)] == expected
    assert archive.read("green/deep/ä 犬.txt") == b"x" * 5000
    assert archive.find("green/deep") is None and archive.find("green/../green") is None
    with pytest.raises(UserError, match="no such file"):
        archive.read("green/none.png")


@pytest.mark.parametrize("pack", [stored, zipped, tarred])
def test_a_data_set_in_an_archive(tiny_folder: Path, tmp_path: Path, pack: Pack) -> None:
    whole, packed = open_dataset(tiny_folder), open_dataset(pack(tiny_folder, tmp_path / "set"))
    assert packed.paths == whole.paths and packed.schema == whole.schema and packed.fingerprint() == whole.fingerprint()
    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(packed.__getitem__, range(24)), map(whole.__getitem__, range(24)), strict=True):
            np.testing.assert_array_equal(ours.image, theirs.image)


def test_the_one_folder_around_everything_is_left_out(tiny_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in tiny_folder.rglob("*.png"):
            archive.write(path, Path("my set") / path.relative_to(tiny_folder))
        archive.writestr("__MACOSX/._x", b"x")
    assert open_annotations(tmp_path / "set.zip").classes == open_annotations(tiny_folder).classes
    with zipfile.ZipFile(tmp_path / "split.zip", "w") as archive:
        archive.writestr("train/a/1.png", b"x")
    assert open_annotations(tmp_path / "split.zip").items[0].split == "train"


def bare(name: str = "a/1.png", data: bytes = b"x", **facts: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def one_zip(path: Path, *infos: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info in infos:
            archive.writestr(info, b"x")
    return path


def one_tar(path: Path, **facts: object) -> Path:
    info = tarfile.TarInfo("a/1.png")
    for key, value in facts.items():
        setattr(info, key, value)
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    return path


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "a\\..\\x.png", "a/..\\..\\x.png"])
def test_no_way_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="lead out"):
        open_archive(one_zip(tmp_path / "x.zip", bare(name)))
    with pytest.raises(UserError, match="lead out"):
        open_archive(one_tar(tmp_path / "x.tar", name=name))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_links_devices_or_doubles(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a link"):
        open_archive(one_zip(tmp_path / "x.zip", bare(external_attr=0o120777 << 16)))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with pytest.raises(UserError, match="a link, a device"):
            open_archive(one_tar(tmp_path / "x.tar", type=kind, linkname="/etc/passwd"))
    with pytest.raises(UserError, match="twice"):
        open_archive(one_zip(tmp_path / "x.zip", bare(), bare()))
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a/1.png"))
        archive.addfile(tarfile.TarInfo("./a/1.png"))
    with pytest.raises(UserError, match="twice"):
        open_archive(tmp_path / "y.tar")


def test_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(archives.FREE + (64 << 20)))
    with pytest.raises(UserError, match="a bomb"):
        open_archive(tmp_path / "x.zip")


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    """As in Fifield's overlapping bomb: many entries of the directory point at one member."""
    made = bytearray(one_zip(tmp_path / "x.zip", bare("a/1.png"), bare("a/2.png")).read_bytes())
    second = made.rindex(b"PK\x01\x02")
    made[second + 42 : second + 46] = struct.pack("<I", 0)
    (tmp_path / "x.zip").write_bytes(made)
    with pytest.raises(UserError, match="shares its bytes"):
        open_archive(tmp_path / "x.zip")


def test_a_member_that_is_more_than_it_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(1000))
    made = bytearray((tmp_path / "x.zip").read_bytes())
    entry = made.rindex(b"PK\x01\x02")
    made[entry + 24 : entry + 28] = struct.pack("<I", 10)
    (tmp_path / "x.zip").write_bytes(made)
    with pytest.raises(UserError, match="damaged inside"):
        open_archive(tmp_path / "x.zip").read("a/1.png")


@pytest.mark.parametrize("facts", [{"flag_bits": 1}, {"compress_type": zipfile.ZIP_BZIP2}])
def test_what_is_not_read_says_so(tmp_path: Path, facts: dict[str, int]) -> None:
    made = one_zip(tmp_path / "x.zip", bare(**{k: v for k, v in facts.items() if k == "compress_type"}))
    if "flag_bits" in facts:
        data = bytearray(made.read_bytes())
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
        made.write_bytes(data)
    with pytest.raises(UserError, match="unpack it first"):
        open_archive(made)


@pytest.mark.parametrize("pack", [stored, zipped, tarred])
def test_damage_is_one_line(tiny_folder: Path, tmp_path: Path, pack: Pack) -> None:
    """A flipped byte anywhere, or an end that is missing: a refusal, or bytes that are what they were (a tar has no sums of its own)."""
    made = pack(tiny_folder, tmp_path / "set")
    whole, draws = made.read_bytes(), random.Random(0)
    for turn in range(120):
        data = bytearray(whole[: draws.randrange(len(whole))]) if turn % 3 == 0 else bytearray(whole)
        if turn % 3:
            data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        made.write_bytes(data)
        with contextlib.suppress(UserError):
            found = open_archive(made)
            for file in found.files(deep=True):
                original, data = tiny_folder / file.path, bytearray(found.read(file.path))
                assert pack is tarred or not original.exists() or data == original.read_bytes()


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name in ("x.zip", "x.tar"):
        (tmp_path / name).write_bytes(b"no archive" * 100)
        with pytest.raises(UserError, match="whole archive"):
            open_dataset(tmp_path / name)
    with tarfile.open(tmp_path / "y.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a/1.png"), io.BytesIO())
    with pytest.raises(UserError, match="whole archive"):
        open_dataset(tmp_path / "y.tar")


def test_a_change_is_seen(tiny_folder: Path, tmp_path: Path) -> None:
    tree = open_archive(zipped(tiny_folder, tmp_path / "set"))
    path = tree.files(deep=True)[0].path
    before = tree.state(path)
    os.utime(tree.root, ns=(1, 1))
    assert tree.state(path) != before and tree.state("none") == (0, 0)
