"""The cache of decoded images: read once, checked, in order, and never in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data import cache
from saccade.data.cache import DecodingStore, PixelStore, Preparation
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset

AS_IT_IS = Preparation("as it is", lambda pixels: pixels)
HALF = Preparation("every second", lambda pixels: np.ascontiguousarray(pixels[::2, ::2]))


def load(dataset: Dataset, folder: Path, *, preparation: Preparation = AS_IT_IS, workers: int = 2) -> tuple[Any, list[cache.BadFile]]:
    return cache.load(dataset, np.arange(len(dataset)), preparation, progress=Silent(), workers=workers, folder=folder)


def decoded(dataset: Dataset) -> list[np.ndarray]:
    return [np.asarray(Image.open(dataset.root / path).convert("RGB")) for path in dataset.paths]


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Dataset, index: int, covering: object = None) -> None:
        raise AssertionError(f"image {index} was read")

    monkeypatch.setattr(Dataset, "decode", refuse)


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_the_second_load_reads_no_image(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(tiny_folder)
    truth = decoded(dataset)
    first, bad = load(dataset, tmp_path / "cache")
    assert not bad and len(first) == 24
    forbid(monkeypatch)
    second, bad = load(dataset, tmp_path / "cache")
    assert not bad and files(tmp_path / "cache") == [".npy", ".u8"]
    for i, pixels in enumerate(truth):
        assert np.array_equal(first[i], pixels) and np.array_equal(second[i], pixels)
        assert second[i].dtype == np.uint8 and not second[i].flags.writeable
    with pytest.raises(AssertionError, match="was read"):
        load(dataset, tmp_path / "cache", preparation=HALF)


def test_pictures_with_alpha_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (17, 11 + i, 4), np.uint8)).save(tmp_path / f"set/{i}.png")
    dataset = open_dataset(tmp_path / "set", task="generate")
    truth = [dataset[i].image for i in range(5)]
    first, _ = load(dataset, tmp_path / "cache")
    forbid(monkeypatch)
    second, _ = load(dataset, tmp_path / "cache")
    for i, pixels in enumerate(truth):
        assert pixels.shape == (17, 11 + i, 4) and np.array_equal(first[i], pixels) and np.array_equal(second[i], pixels)


@pytest.mark.parametrize("workers", [0, 1, 2, 16])
def test_order_with_any_number_of_threads(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 3)
    (tmp_path / "set/a").mkdir(parents=True)
    for i in range(60):
        side = 200 if i % 7 == 0 else 5  # some take longer
        Image.fromarray(np.full((side, side + i % 3, 3), i, np.uint8)).save(tmp_path / f"set/a/{i:02}.png")
    dataset = open_dataset(tmp_path / "set")
    backwards = np.arange(60)[::-1].copy()
    store, _ = cache.load(dataset, backwards, AS_IT_IS, progress=Silent(), workers=workers, folder=tmp_path / "cache")
    assert [int(store[i][0, 0, 0]) for i in range(60)] == backwards.tolist()
    assert [store[i].shape[1] - store[i].shape[0] for i in range(60)] == [i % 3 for i in backwards.tolist()]


def test_a_part_of_a_set_has_an_entry_of_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_folder)
    for name in ("train", "val"):
        store, _ = cache.load(dataset, dataset.split(name), AS_IT_IS, progress=Silent(), folder=tmp_path / "cache")
        assert [store[i].shape for i in range(len(store))] == [dataset[i].image.shape for i in dataset.split(name)]
    assert files(tmp_path / "cache") == [".npy"] * 2 + [".u8"] * 2


def test_all_bad_files_are_listed_and_nothing_is_kept(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (tiny_folder / "green/2.png").read_bytes()
    (tiny_folder / "green/2.png").write_bytes(whole[: len(whole) // 2])
    (tiny_folder / "green/5.png").write_bytes(b"")
    (tiny_folder / "rot & weiß/0.png").write_bytes(b"no image")
    dataset = open_dataset(tiny_folder)
    for limit in (cache.LIMIT_BYTES, 1000):
        monkeypatch.setattr(cache, "LIMIT_BYTES", limit)
        store, bad = load(dataset, tmp_path / "cache")
        assert [file.path for file in bad] == ["green/2.png", "green/5.png", "rot & weiß/0.png"]
        assert [dataset.paths[file.index] for file in bad] == [file.path for file in bad]
        assert all(file.reason and "\n" not in file.reason for file in bad)
        good = [i for i in range(24) if i not in {file.index for file in bad}]
        assert len(store) == 21 and all(np.array_equal(store[place], dataset[i].image) for place, i in enumerate(good))
        assert files(tmp_path / "cache") == []


@pytest.mark.processes
def test_a_full_disk_is_one_line_and_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """A real limit on the size of files: the pixels do not fit into 4 KiB."""
    code = f"""
import resource, signal
from pathlib import Path
import numpy as np
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data import cache
from saccade.data.opening import open_dataset
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
dataset = open_dataset({str(tiny_folder)!r})
as_it_is = cache.Preparation("as it is", lambda pixels: pixels)
try:
    cache.load(dataset, np.arange(len(dataset)), as_it_is, progress=Silent(), folder=Path({str(tmp_path / "cache")!r}))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and "cannot keep decoded images" in done.stdout and str(tmp_path / "cache") in done.stdout
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize("limit", [cache.LIMIT_BYTES, 100])
def test_only_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(cache, "LIMIT_BYTES", limit)
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/1.png").write_bytes(b"x")
    store, bad = load(open_dataset(tmp_path / "set"), tmp_path / "cache")
    assert len(store) == 0 and len(bad) == 1


def test_no_image_at_all(tiny_folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        store, bad = cache.load(open_dataset(tiny_folder), np.array([], np.int64), AS_IT_IS, progress=Silent(), folder=tmp_path / "cache")
        assert len(store) == 0 and not bad


@pytest.mark.parametrize("what", ["size", "age", "path", "channels", "preparation"])
def test_what_has_changed_is_read_again(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    load(open_dataset(tiny_folder), tmp_path / "cache")
    path = tiny_folder / "green/0.png"
    if what == "size":
        age = path.stat().st_mtime_ns
        Image.new("RGB", (40, 40)).save(path)
        os.utime(path, ns=(age, age))
    elif what == "age":
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    elif what == "path":
        path.rename(tiny_folder / "green/00.png")
    elif what == "channels":
        for file in tiny_folder.glob("*/*"):
            stat = file.stat()
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    dataset = open_dataset(tiny_folder)
    if what == "channels":
        from dataclasses import replace

        dataset = replace(dataset, schema=replace(dataset.schema, channels=1))
    store, bad = load(dataset, tmp_path / "cache", preparation=HALF if what == "preparation" else AS_IT_IS)
    index = next(i for i, name in enumerate(dataset.paths) if name.startswith("green/0"))
    expected = dataset[index].image
    assert not bad and np.array_equal(store[index], HALF.apply(expected) if what == "preparation" else expected)
    assert files(tmp_path / "cache") == [".npy"] * 2 + [".u8"] * 2


def test_where_no_folder_can_be_made_images_stay_in_memory(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    dataset = open_dataset(tiny_folder)
    (tiny_folder / "green/0.png").write_bytes(b"x")
    store, bad = load(dataset, tmp_path / "file" / "cache")
    assert isinstance(store, PixelStore) and len(store) == 23 and [file.path for file in bad] == ["green/0.png"]
    assert np.array_equal(store[0], dataset[0].image)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    store, _ = load(open_dataset(tiny_folder), tmp_path / "cache")
    assert isinstance(store, PixelStore) and len(store) == 24


def test_beyond_the_limit_images_are_decoded_each_time(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(tiny_folder)
    kept, _ = load(dataset, tmp_path / "one", preparation=HALF)
    monkeypatch.setattr(cache, "LIMIT_BYTES", 5000)
    order = np.arange(24)[::-1].copy()
    store, bad = cache.load(dataset, order, HALF, progress=Silent(), folder=tmp_path / "two")
    assert isinstance(store, DecodingStore) and not bad and len(store) == 24 and files(tmp_path / "two") == []
    assert all(np.array_equal(store[i], kept[23 - i]) for i in range(24))
    (tiny_folder / dataset.paths[0]).unlink()
    with pytest.raises(UserError, match="no such file"):
        store[23]


def test_damaged_or_half_entries_are_made_again(tiny_folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_folder)
    load(dataset, tmp_path)
    data, shapes = next(tmp_path.glob("*.u8")), next(tmp_path.glob("*.npy"))
    for damage in (
        lambda: data.write_bytes(b"x"),
        lambda: shapes.write_bytes(b"x"),
        shapes.unlink,
        data.unlink,
        lambda: shapes.write_bytes(b""),
    ):
        damage()
        store, bad = load(dataset, tmp_path)
        assert not bad and all(np.array_equal(store[i], dataset[i].image) for i in range(24))


def test_room_is_made_by_dropping_what_was_unused_for_longest(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, folder = open_dataset(tiny_folder), tmp_path / "cache"
    load(dataset, folder)
    oldest = next(folder.glob("*.u8"))
    size = oldest.stat().st_size
    os.utime(oldest, (1000, 1000))
    load(dataset, folder, preparation=HALF)
    os.utime(next(path for path in folder.glob("*.u8") if path != oldest), (2000, 2000))
    monkeypatch.setattr(cache, "LIMIT_BYTES", size * 2)
    load(dataset, folder)  # used: no longer the oldest
    load(dataset, folder, preparation=Preparation("again", lambda pixels: pixels))
    assert oldest.exists() and files(folder) == [".npy"] * 2 + [".u8"] * 2
    assert sum(path.stat().st_size for path in folder.glob("*.u8")) == size * 2


def test_what_killed_processes_left_goes_after_a_day(tiny_folder: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "abc.x1y2", tmp_path / "abc.z3"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    load(open_dataset(tiny_folder), tmp_path)
    assert not old.exists() and new.exists()


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "saccade/pixels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache/saccade/pixels"


CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from saccade.core.progress import Silent
from saccade.data import cache
from saccade.data.opening import open_dataset
dataset, pause = open_dataset(sys.argv[1]), float(sys.argv[3])
cache.CHUNK = 2
def slow(pixels):
    time.sleep(pause)
    return pixels
print("ready", flush=True)
sys.stdin.readline()
store, bad = cache.load(dataset, np.arange(len(dataset)), cache.Preparation("as it is", slow), progress=Silent(), folder=Path(sys.argv[2]))
print(sum(int(store[i].sum()) for i in range(len(store))), len(bad), flush=True)
"""


def child(root: Path, folder: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(root), str(folder), str(pause)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.processes
def test_killed_half_way_leaves_no_entry(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    process = child(tiny_folder, folder, 0.1)
    go(process)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (folder.is_dir() and any(path.stat().st_size for path in folder.iterdir())):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(folder.glob("*.u8")) and not list(folder.glob("*.npy")) and len(list(folder.iterdir())) == 1
    dataset = open_dataset(tiny_folder)
    store, bad = load(dataset, folder)
    assert not bad and all(np.array_equal(store[i], dataset[i].image) for i in range(24))


@pytest.mark.processes
def test_two_processes_at_once(tiny_folder: Path, tmp_path: Path) -> None:
    both = [child(tiny_folder, tmp_path / "cache", 0.01) for _ in range(2)]
    for process in both:
        go(process)
    outputs = [process.communicate(timeout=60)[0] for process in both]
    total = sum(int(pixels.sum()) for pixels in decoded(open_dataset(tiny_folder)))
    assert outputs == [f"{total} 0\n"] * 2
    assert files(tmp_path / "cache") == [".npy", ".u8"]
