"""`embed`: a row for each image whatever stands beside it, of trained models and of networks by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import saccade
from saccade.cli.main import main
from saccade.core.errors import UserError
from saccade.core.prepare import prepare
from saccade.core.progress import Silent

NAME = "small_resnet_8px"


def pictures(n: int = 21) -> list[Any]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (20 + 3 * i, 90 - 4 * i, 3), dtype=np.uint8) for i in range(n)]


def embed(target: Any, inputs: Any, **options: Any) -> saccade.Embeddings:
    return saccade.embed(target, inputs, device="cpu", progress=Silent(), **options)


def test_a_row_for_each_image_in_order_and_no_bad_ones(run: saccade.Run, tmp_path: Path) -> None:
    images = pictures()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "05 bad.png").write_bytes(b"none")
    model = saccade.load(run.path, device="cpu")
    assert isinstance(model, saccade.Model)
    found = model.embed(tmp_path, progress=Silent())
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (np.float32, (21, 128))
    assert found.sources == tuple(str(tmp_path / f"{number:02d}.png") for number in range(21))
    assert [Path(row["source"]).name for row in found.failed] == ["05 bad.png"]
    for number in (0, 7, 20):
        alone = model.embed(images[number], progress=Silent())
        np.testing.assert_allclose(alone[0], found[number], rtol=1e-4, atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) == 21
    np.testing.assert_array_equal(run.embed(images, device="cpu", progress=Silent()), found)
    np.testing.assert_array_equal(embed(run.model, [tmp_path]), found)
    with pytest.raises(UserError, match=r"05 bad\.png"):
        embed(run.model, tmp_path, strict=True)
    with pytest.raises(UserError, match="must be an image"):
        embed(run.model, tmp_path / "05 bad.png")
    with pytest.raises(UserError, match="no images were given"):
        embed(run.model, [])


def test_is_what_the_last_layer_decides_by(run: saccade.Run) -> None:
    model = saccade.load(run.path, device="cpu")
    images = pictures(5)
    head: Any = model.module.network.head  # type: ignore[union-attr]
    logits = model.embed(images, progress=Silent()) @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    expected = [one.probabilities for one in model.predict(images, progress=Silent())]  # type: ignore[union-attr]
    np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), expected, atol=1e-5)


def test_an_array_that_knows_its_sources_and_plain_arrays_from_it() -> None:
    found = embed(NAME, pictures(3), size=16)
    assert found.sources == ("input 0", "input 1", "input 2")
    for made in (found[1:], found[0], next(iter(found)), found * 2, found @ found.T, found.mean(0), np.asarray(found)):
        assert type(made) is np.ndarray
    assert isinstance(found.mean(), np.floating)
    assert found.images_per_second > 0
    facts = found.to_dict()
    assert (facts["file"], facts["dimensions"], facts["failed"]) == (None, 128, [])
    np.testing.assert_allclose([row["embedding"] for row in facts["results"]], found)


def test_random_networks_follow_from_the_seed() -> None:
    one, same, other = (embed(NAME, pictures(2), size=16, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    before = torch.random.get_rng_state()
    embed(NAME, pictures(1), size=16)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_layers_and_sizes() -> None:
    images = pictures(3)
    assert embed("resnet18", images, size="40x64").shape == (3, 512)
    assert embed("resnet18", images, size=32, layer="layer1").shape == (3, 64)
    assert embed(NAME, images, size=16, layer="features.1").shape == (3, 32)
    with pytest.raises(UserError, match=r"unknown layer .layr1.*layer1"):
        embed("resnet18", images, size=32, layer="layr1")


def test_weights_of_a_file(run: saccade.Run, tmp_path: Path) -> None:
    """A network by name with what a file holds of it: a model's own vectors, and what is refused."""
    images = pictures(3)
    model = saccade.load(run.path, device="cpu")
    found = embed(NAME, images, weights=run.model)
    np.testing.assert_allclose(found, model.embed(images, progress=Silent()), atol=1e-5)
    assert found.shape == (3, 128) and np.abs(found - embed(NAME, images, size=(33, 20))).max() > 1e-3
    plain = tmp_path / "plain.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), plain)
    with pytest.raises(UserError, match=r"plain\.safetensors are of unknown licence"):
        embed("test_resnet", images, weights=plain, license="mit")
    for options, words in (({"pretrained": True}, "in the place of --pretrained"), ({"size": 8}, "this network, must be 50%")):
        with pytest.raises(UserError, match=words):
            embed(NAME, images, weights=plain, **options)
    with pytest.raises(UserError, match="goes with the name of a network"):
        embed(run.model, images, weights=plain)


def test_names_of_other_libraries(tmp_path: Path) -> None:
    """They have a slash, and are no folders."""
    assert embed("torchvision/resnet18", pictures(2), size=64).shape == (2, 512)
    with pytest.raises(UserError, match="no such run or model"):
        embed("no/such", pictures(1))
    with pytest.raises(UserError, match="hf/OWNER/NAME"):
        embed("hf/such", pictures(1))


@pytest.mark.long
def test_published_weights_are_those_of_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as timm's own model without a classifier, on the same pixels."""
    import huggingface_hub.constants as hub

    name = "resnet18.a1_in1k"
    torch.manual_seed(5)
    theirs = timm.create_model(name)
    folder = tmp_path / f"models--timm--{name}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(theirs.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    images = pictures(4)
    found = embed(name, images, pretrained=True, size=96)
    spec = saccade.api.embedding.opened(name, pretrained=True, size=96, device="cpu").card.input
    pixels = torch.from_numpy(np.stack([prepare(image, spec) for image in images])).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    theirs.reset_classifier(0)
    with torch.inference_mode():
        expected = theirs.eval()((pixels - mean) / std).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(found - embed(name, images, size=96)).max() > 0.01, "random weights are others"


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("resnet81", {}, "no such run, model file or network: 'resnet81' .did you mean"),
        ("runs/gone", {}, "no such run or model"),
        ("gone.safetensors", {}, "no such run or model"),
        ("gone.onnx", {}, "is an exported file"),
        (NAME, {"out": "x.csv"}, "written as .npz, not as .csv"),
        (NAME, {"out": "x"}, "written as .npz, not as a folder"),
        (NAME, {"size": "0"}, "a size must be"),
        (NAME, {"pretrained": True}, "has no published weights"),
    ],
)
def test_requests_that_cannot_be(target: str, options: Any, said: str, place: Path) -> None:
    with pytest.raises(UserError, match=said):
        embed(target, pictures(1), **options)
    assert list(place.iterdir()) == []


def test_a_trained_model_has_its_own_weights_and_size_and_task(run: saccade.Run) -> None:
    for options in ({"pretrained": True}, {"size": 32}):
        with pytest.raises(UserError, match="goes with the name of a network"):
            embed(run.model, pictures(1), **options)
    model: Any = saccade.load(run.model, device="cpu")
    with pytest.raises(UserError, match="only models that classify embed images, this one was trained to detect"):
        embed(replace(model, card=replace(model.card, task="detect")), pictures(1))


def test_the_command_writes_an_archive_or_one_object(run: saccade.Run, shapes: Path, place: Path, capsys: Any) -> None:
    (place / "bad\udcff.png").write_bytes(b"none")
    good = sorted((shapes / "test").rglob("*.png"))[:3]
    argv = ["embed", str(run.path), *map(str, good), "bad\udcff.png", "--out", "v.npz", "--device", "cpu"]
    assert main(argv) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith("3 images as vectors of 128 numbers, ")
    assert told.out.splitlines()[1] == "written to v.npz"
    assert "failed: bad" in told.err
    with np.load("v.npz") as kept:  # no pickle
        assert kept["sources"].tolist() == list(map(str, good))
        vectors = kept["embeddings"]
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 128))
    assert main(["embed", NAME, str(good[0]), "--size", "16", "--layer", "features.0", "--json"]) == 0
    told = capsys.readouterr()
    facts = json.loads(told.out)
    assert (facts["dimensions"], len(facts["results"][0]["embedding"]), facts["file"]) == (32, 32, None)
    assert f"{NAME} has random weights" in told.err
    assert main(["embed", NAME, str(good[0])]) == 2
    assert "--out FILE.npz, or --json" in capsys.readouterr().err
