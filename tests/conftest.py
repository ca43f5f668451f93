"""Fixtures and options of the whole suite: real data, small folders made on the spot, the guard, and which tests run."""

from __future__ import annotations

import os

# Before NumPy or torch load, and inherited by child processes: the suite never takes more than two cores, its two workers one each.
THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else str(min(2, os.cpu_count() or 1))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = THREADS
os.environ.setdefault("MPLBACKEND", "agg")

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

import guard

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of jobs that a shell starts with &: their children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get("SACCADE_SHARED_DATA") or REPO.parent / "shared" / "data")
TINY_CLASSES = {"blue squares": (40, 60, 220), "green": (50, 200, 60), "rot & weiß": (220, 50, 40)}
TINY_SIZES = ((17, 11), (33, 20), (24, 24), (9, 40), (31, 31), (64, 48), (12, 13), (48, 63))  # (height, width)

# Property tests: a part of their examples by default; all of them with --run-slow, where they count as slow.
hypothesis.settings.register_profile("saccade", deadline=None, derandomize=True, database=None, max_examples=15)
hypothesis.settings.register_profile("saccade-slow", hypothesis.settings.get_profile("saccade"), max_examples=60)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow (minutes)")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("saccade-slow" if config.getoption("--run-slow") else "saccade")
    guard.install()
    config.pluginmanager.register(guard.GuardPlugin(), "saccade-guard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = pytest.mark.skip(reason="slow: run it with --run-slow")
    gpu = pytest.mark.skip(reason="needs a CUDA device")
    has_gpu = any(item.get_closest_marker("gpu") for item in items) and _cuda()
    for item in items:
        if config.getoption("--run-slow") and hypothesis.is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("slow")
        if item.get_closest_marker("slow") and not config.getoption("--run-slow"):
            item.add_marker(slow)
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(gpu)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, or where SACCADE_SHARED_DATA says; read-only."""
    if not (SHARED_DATA / "unpack.py").is_file():
        pytest.skip(f"no real data at {SHARED_DATA} (set SACCADE_SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def unpacked(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`unpacked(name)` -> the folder of one real set, read-only.

    Names: bccd, nuclei, coco-excerpt, noto-emoji-32, clothing-photos, mnist, cifar10.
    """
    target = tmp_path_factory.mktemp("unpacked")

    def unpack(name: str) -> Path:
        if not (target / name).is_dir():
            with guard.GUARD.allow("processes"):
                subprocess.run([sys.executable, str(shared_data / "unpack.py"), str(target), name], check=True, capture_output=True)
        return target / name

    return unpack


@pytest.fixture(scope="session")
def photos_folder(unpacked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos, few: train/ (8 a class) and test/ (4 a class) of three classes of clothing; read-only."""
    source, target = unpacked("clothing-photos"), tmp_path_factory.mktemp("photos")
    for split, count in (("train", 8), ("test", 4)):
        for name in ("hat", "pants", "shoes"):
            (target / split / name).mkdir(parents=True)
            for path in sorted((source / split / name).iterdir())[:count]:
                shutil.copy(path, target / split / name)
    return target


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """3 classes of 8 noisy images that a small network can learn, of odd and mixed sizes; the test may change it."""
    target, generator = tmp_path / "tiny", np.random.Generator(np.random.Philox(0))
    for name, color in TINY_CLASSES.items():
        (target / name).mkdir(parents=True)
        for number, size in enumerate(TINY_SIZES):
            noise = generator.integers(-30, 30, (*size, 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            suffix = ".jpg" if number % 4 == 3 else ".png"
            Image.fromarray(pixels).save(target / name / f"{number}{suffix}")
    return target


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's handwritten digits as class folders of PNG files, 1,797 images of 8x8; read-only."""
    from saccade.data.builtin import write_digits

    return write_digits(tmp_path_factory.mktemp("digits") / "digits")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium of the system, for tests marked browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium (apt-get install chromium)")
