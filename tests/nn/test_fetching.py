"""Published files: fetched once, checked each time, read as anybody's; without a network one line says what to bring."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.core.errors import UserError
from saccade.nn import fetching
from saccade.nn.fetching import Published
from saccade.nn.pretrained import published, torchvisions


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Published("a.pth", "http://127.0.0.1:9/v1/a.pth", hashlib.sha256(b"abc").hexdigest(), "mit")


def serve(monkeypatch: pytest.MonkeyPatch, data: bytes) -> list[str]:
    asked: list[str] = []

    def answer(address: str, timeout: float) -> Any:
        asked.append(address)
        return io.BytesIO(data)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked


def test_fetched_once(file: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, b"abc")
    assert fetching.fetch(file, "it", where="--x").read_bytes() == b"abc"
    assert fetching.fetch(file, "it", where="--x") == file.place
    assert asked == [file.address]


def test_another_file_is_refused_and_not_kept(file: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, b"abd")
    with pytest.raises(UserError, match="not the file that is published"):
        fetching.fetch(file, "it", where="--x")
    assert not file.place.exists()
    file.place.parent.mkdir(parents=True)
    file.place.write_bytes(b"brought by hand, but another")
    with pytest.raises(UserError, match=f"remove {file.place}"):
        fetching.fetch(file, "it", where="--x")
    with pytest.raises(UserError, match="not the file"):  # of which no sum is known
        fetching.fetch(replace(file, sha256=""), "it", where="--x")


def test_without_network_one_line_says_what_to_bring(file: Published) -> None:
    with pytest.raises(UserError) as caught:  # a port where nobody listens
        fetching.fetch(file, "the weights of it", where="--x")
    said = str(caught.value)
    assert "\n" not in said and file.address in said and str(file.place) in said and "the weights of it" in said


def test_every_weights_of_torchvision_name_their_sum() -> None:
    from torchvision import models

    for base in models.list_models(module=models):
        for one in models.get_model_weights(base):
            assert len(published(torchvisions(f"torchvision/{base}.{one.name}")).sha256) >= 8, one


@pytest.mark.processes
def test_a_hostile_file_runs_nothing(file: Published, tmp_path: Path) -> None:
    """Not even where its sum is the one stated."""

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "owned",)

    file.place.parent.mkdir(parents=True)
    torch.save({"w": torch.zeros(2), "x": Evil()}, file.place)
    stated = replace(file, sha256=hashlib.sha256(file.place.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="holds more than weights"):
        fetching.tensors(stated, "it", where="--x")
    assert not (tmp_path / "owned").exists()
