"""Models that make images, from Python: trained, resumed, measured, sampled; what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.api import judging
from saccade.api.sets import Split
from saccade.core import alpha, images, modelfile, rundir
from saccade.core.errors import Interrupted
from saccade.core.progress import Silent
from saccade.tasks.generation import metrics
from small_jobs import Stopping

CONFIGS: dict[str, dict[str, Any]] = {
    "r3gan": {"set": {"generation.adaptive": True, "generation.augment": 0.2, "generation.penalty_every": 2}},
    "dcgan": {"set": {"generation.conditional": False, "generation.features": "clusters"}},
    "vae": {"set": {"generation.latent": 5, "augment.flip": 0.5, "generation.conditional": True}},
    "vqvae": {"set": {"generation.likelihood": "gaussian"}},
    "autoencoder_kl": {"epochs": 1, "set": {"generation.adversarial_after": 4}},
    "vq_model": {"epochs": 1, "set": {"generation.adversarial_after": 4}},
}


@pytest.fixture(scope="module", autouse=True)
def few() -> Any:
    """Fewer images to measure with: their number changes no rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "FINAL", 60)
        patch.setattr(judging, "LOOKED_AT", 40)
        patch.setattr(judging, "SEEN", 160)
        patch.setattr(metrics, "REPEATS", 4)
        yield


def train(data: Path, out: Path, model: str, **options: Any) -> Run:
    """The cheapest run there is."""
    given = {"task": "generate", "size": (16, 12), "batch": 8, "epochs": 2, "device": "cpu", "seed": 4, "progress": Silent()}
    return saccade.train(data, out=out, model=model, **{**given, **CONFIGS[model], **options})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 drawn shapes of three classes, 17x11 pixels."""
    target = tmp_path_factory.mktemp("data") / "shapes"
    saccade.data.make("shapes", n=300, size=(17, 11), out=target, seed=3)
    for split in ("train", "val", "test"):
        for folder in sorted((target / split).iterdir())[3:]:
            shutil.rmtree(folder)
    return target


@pytest.fixture(scope="module")
def runs(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return {model: train(drawn, tmp_path_factory.mktemp("runs") / model, model) for model in CONFIGS}


def tensors(path: Path) -> dict[str, bytes]:
    return {name: bytes(buffer.data) for name, buffer in modelfile.load(path)[0].items()}


@pytest.mark.parametrize("model", CONFIGS)
def test_what_a_run_leaves(runs: dict[str, Run], model: str) -> None:
    run = runs[model]
    names = {path.name for path in run.path.iterdir()}
    assert names >= {"run.json", "metrics.jsonl", "best.safetensors", "features.safetensors", "samples", "report.html"}
    assert run.to_dict()["task"] == "generate"
    features = "clusters" if model == "dcgan" else "classifier"
    likely = "gan" not in model
    wanted = {f"{name}_{features}" for name in ("fid", "kid", "precision", "recall", "density", "coverage")}
    assert set(run.metrics) >= wanted | ({"bits_per_dim", "psnr", "ssim", "elbo", f"perceptual_{features}"} if likely else {"told_apart"})
    assert all(value is not None and np.isfinite(value) for value in run.metrics.values())
    sheets = sorted((run.path / "samples").iterdir())
    assert [int(sheet.stem[5:]) for sheet in sheets] == [row["step"] for row in rundir.RunDir(run.path).metrics() if "split" in row]
    assert images.read(sheets[0]).pixels.std() > 0
    page = run.report.read_text()
    for title in ("Made images", "From one to another", "Nearest training images") + (("Map of the latents",) if likely else ()):
        assert title in page
    record = json.loads((run.path / "run.json").read_text())
    assert record["config"]["generation"]["conditional"] is (model in ("r3gan", "vae", "vqvae", "vq_model"))
    assert record["state"] == "done"


@pytest.mark.parametrize("model", CONFIGS)
def test_it_resumes_to_the_bit(runs: dict[str, Run], drawn: Path, tmp_path: Path, model: str) -> None:
    with pytest.raises(Interrupted):
        train(drawn, tmp_path / "r", model, progress=Stopping(5))
    again = saccade.train(out=tmp_path / "r", resume=True, workers=2, progress=Silent())
    for name in ("best.safetensors", "last.safetensors", "features.safetensors"):
        assert tensors(again.path / name) == tensors(runs[model].path / name), name
    plain = [[{**row, "time": None} for row in rundir.RunDir(run.path).metrics()] for run in (again, runs[model])]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("model", CONFIGS)
def test_image_i_is_a_function_of_the_seed_and_i(runs: dict[str, Run], model: str) -> None:
    few, many = (saccade.generate(runs[model].path, n=n, seed=9) for n in (3, 5))
    assert many.images.shape == (5, 16, 12, 3) and many.images.dtype == np.uint8
    assert np.array_equal(few.images, many.images[:3]) or np.abs(few.images.astype(int) - many.images[:3]).max() <= 1
    assert np.array_equal(few.latents, many.latents[:3])
    again = saccade.generate(runs[model].path, latents=many.latents[3:4], n=1, class_name=None if many.labels is None else many.classes[0])
    assert again.images.shape == (1, 16, 12, 3)
    assert not np.array_equal(many.images, saccade.generate(runs[model].path, n=5, seed=10).images)


def test_classes_and_ways_between(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["r3gan"]
    classes = saccade.load(run.path).card.classes
    one = saccade.generate(run.path, n=4, class_name=classes[1])
    assert one.labels is not None and set(one.labels) == {1}
    assert set(saccade.generate(run.path, n=60).labels) == {0, 1, 2}  # type: ignore[arg-type]
    way = saccade.generate(run.path, n=3, interpolate=7, out=tmp_path / "way", nearest=True)
    facts = way.to_dict()
    assert len(way) == 14 and len(facts["images"]) == 14
    assert np.load(facts["latents"]).shape == way.latents.shape
    with Image.open(facts["video"]) as video:
        assert video.n_frames == 14  # type: ignore[attr-defined]
    assert images.read(facts["grid"]).pixels.shape[1] > images.read(facts["images"][0]).pixels.shape[1] * 6
    assert len(facts["neighbours"]) == 14 and all(len(row["nearest"]) == 3 for row in facts["neighbours"])
    assert facts["neighbours"][0]["distances"] == sorted(facts["neighbours"][0]["distances"])
    json.dumps(facts)
    plain, close = (saccade.generate(run.path, n=30, truncation=t).images.astype(float) for t in (1.0, 0.1))
    assert close.std(0).mean() < plain.std(0).mean()


def test_an_image_is_taken_up(runs: dict[str, Run], drawn: Path) -> None:
    source = sorted((drawn / "test").rglob("*.png"))[0]
    for model in (name for name in CONFIGS if "gan" not in name):
        found = saccade.generate(runs[model].path, from_image=source, n=4)
        assert found.images.shape == (4, 16, 12, 3)
        assert found.notes["bits_per_dim"] > 0
        noise = np.random.default_rng(0).integers(0, 256, (17, 11, 3), dtype=np.uint8)
        strange = saccade.generate(runs[model].path, from_image=noise, n=1)
        assert strange.notes["anomaly"] > found.notes["anomaly"], "noise is less likely than a drawn shape"
    with pytest.raises(UserError, match="no encoder"):
        saccade.generate(runs["r3gan"].path, from_image=source)


def test_eval_measures_again_and_on_other_images(runs: dict[str, Run], drawn: Path) -> None:
    run = runs["vae"]
    found = saccade.eval(run.path)
    assert (found.task, found.split) == ("generate", "test")
    assert found.metrics["bits_per_dim_weighted"] < found.metrics["bits_per_dim"]  # type: ignore[operator]
    low, high = found.intervals["bits_per_dim"]
    assert low < found.metrics["bits_per_dim"] < high  # type: ignore[operator]
    low, high = found.intervals["fid_classifier"]
    assert low <= found.metrics["fid_classifier"] <= high  # type: ignore[operator]
    same = saccade.load(run.path).evaluate(drawn, split="test")
    assert dict(same.metrics) == pytest.approx(dict(found.metrics))
    shutil.copy(run.model, "alone.safetensors")
    with pytest.raises(UserError, match="not known"):
        saccade.eval("alone.safetensors", drawn)
    assert "fid_features" in saccade.eval(run.path, features=run.path / "features.safetensors").metrics
    flat = folder_of(Path("flat"), 90, lambda i: np.full((17, 11, 3), i))
    with pytest.raises(UserError, match="no classes"):
        saccade.load(run.path).evaluate(flat)
    other = saccade.eval("alone.safetensors", drawn, features=run.path / "features.safetensors")
    assert "fid_features" in other.metrics


def test_features_of_a_file_name_the_figures(runs: dict[str, Run], drawn: Path, tmp_path: Path) -> None:
    file = shutil.copy(runs["vae"].path / "features.safetensors", tmp_path / "mine.safetensors")
    run = train(drawn, tmp_path / "r", "dcgan", set={"generation.features": str(file)}, epochs=1)
    assert "fid_mine" in run.metrics
    assert not (run.path / "features.safetensors").exists()
    assert "fid_mine" in saccade.eval(run.path).metrics


def test_verbs_for_answers_say_that_it_makes_images(runs: dict[str, Run], drawn: Path, tmp_path: Path) -> None:
    run, image = runs["dcgan"], sorted((drawn / "test").rglob("*.png"))[0]
    for verb in (
        lambda: saccade.predict(run.path, image),
        lambda: saccade.explain(run.path, image),
        lambda: saccade.export(run.path, out=tmp_path / "e"),
    ):
        with pytest.raises(UserError, match="makes images"):
            verb()
    assert not (tmp_path / "e").exists()


def test_transparency_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    numbers = np.random.default_rng(0)
    for i in range(80):
        pixels = np.zeros((16, 16, 4), np.uint8)
        top, left = numbers.integers(0, 8, 2)
        pixels[top : top + 8, left : left + 8] = (*numbers.integers(0, 255, 3), 255)
        Image.fromarray(pixels).save(data / f"{i}.png")
    run = train(data, tmp_path / "r", "vae", size=None, set={})
    assert run.config.channels == 4 and run.config.size == (16, 16)
    made = saccade.generate(run.path, n=2, out=tmp_path / "made")
    with Image.open(made.files["images"][0]) as picture:
        assert picture.mode == "RGBA"
    assert np.array_equal(alpha.premultiplied(made.images)[..., :3] <= made.images[..., 3:], np.ones_like(made.images[..., :3], bool))


def folder_of(path: Path, count: int, pixels: Any) -> Path:
    path.mkdir()
    for i in range(count):
        Image.fromarray(np.asarray(pixels(i), np.uint8)).save(path / f"{i:03d}.png")
    return path


def test_sets_that_nothing_can_be_made_like_are_refused(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)

    def noise(i: int) -> Any:
        return numbers.integers(0, 255, (20, 20, 3))

    with pytest.raises(UserError, match="at least 50 are needed"):
        train(folder_of(tmp_path / "three", 3, noise), tmp_path / "a", "vae")
    with pytest.raises(UserError, match="too much alike"):
        train(folder_of(tmp_path / "flat", 90, lambda i: np.full((20, 20, 3), 7)), tmp_path / "b", "vae", set={})
    with pytest.raises(UserError, match="8 pixels or more"):
        train(folder_of(tmp_path / "good", 90, noise), tmp_path / "c", "vae", size=4, set={})
    with pytest.raises(UserError, match="no classes to be made by"):
        train(tmp_path / "good", tmp_path / "d", "vae", set={"generation.conditional": True})
    with pytest.raises(UserError, match="unknown model"):
        train(tmp_path / "good", tmp_path / "e", "dcgan", **{"set": {"generation.features": "no_such_net"}})
    assert not [name for name in "abcde" if (tmp_path / name).exists()]
    for name in ("dark", "night"):
        folder_of(tmp_path / f"one-{name}", 60, lambda i: np.full((20, 20, 3), 7))
    both = tmp_path / "both"
    both.mkdir()
    for name in ("dark", "night"):
        (tmp_path / f"one-{name}").rename(both / name)
    with pytest.raises(UserError, match="too much alike"):
        train(both, tmp_path / "g", "vae")
    mixed = folder_of(tmp_path / "mixed", 90, lambda i: noise(i)[: 9 + i % 8, : 12 + i % 5, 0] if i % 2 else noise(i))
    run = train(mixed, tmp_path / "f", "vae", size=(24, 24), set={})
    assert run.record["state"] == "done"
    said = " ".join(run.record["reasons"])
    assert "images differ in size" in said and "are enlarged to 24x24" in said and "grey images among them in copies" in said


def test_requests_that_are_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["dcgan"].path
    for options, said in (
        ({"n": 0}, "from 1 to"),
        ({"truncation": 0.0}, "above 0"),
        ({"interpolate": 1}, "2 to 1,000"),
        ({"interpolate": 5, "n": 1}, "two or more"),
        ({"class_name": "cat"}, "not trained by class"),
        ({"latents": np.zeros((2, 3))}, r"shape \[N, 64\]"),
        ({"latents": np.full((2, 64), np.nan)}, "finite"),
        ({"latents": "x"}, "numbers"),
        ({"latents": np.zeros((1, 64)), "interpolate": 4}, "at least 2"),
    ):
        with pytest.raises(UserError, match=said):
            saccade.generate(run, **options)
    for options in ({"interpolate": 3}, {"truncation": 0.5}, {"latents": np.zeros((1, 5))}):
        with pytest.raises(UserError, match="variations of an image take no"):
            saccade.generate(runs["vae"].path, from_image=np.zeros((9, 9), np.uint8), **options)
    with pytest.raises(UserError, match="unknown class"):
        saccade.generate(runs["vae"].path, class_name="no such")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        saccade.generate(run, out=tmp_path / "full")
    with pytest.raises(UserError, match="give the run"):
        saccade.generate(saccade.load(run), nearest=True, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_signal_is_no_loss(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="--resume"):
        train(drawn, tmp_path / "r", "vae", progress=Stopping(1))
    assert json.loads((tmp_path / "r" / "run.json").read_text())["state"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is not None


def test_a_few_images_stand_for_all_classes() -> None:
    """Files lie class by class: the first hundred are of one."""
    split = Split([np.full((2, 2, 1), i % 256, np.uint8) for i in range(300)], [i // 100 for i in range(300)], [str(i) for i in range(300)])  # type: ignore[arg-type]
    pixels, labels = judging._images(split, 60)
    assert labels is not None and set(labels) == {0, 1, 2} and np.bincount(labels).min() > 10
    parts = [judging._images(split, 40, first)[0] for first in range(0, 300, 40)]
    assert sorted(np.concatenate(parts)[:, 0, 0, 0].tolist()) == sorted(i % 256 for i in range(300)), "each once"
    assert np.array_equal(pixels[:40], parts[0])


def test_figures_as_published(runs: dict[str, Run], drawn: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the features and by the network that papers take, whose weights are others here; of another run the pictures are its own."""
    import torch

    from saccade.api.judging import PART
    from saccade.tasks.generation import inception, lpips

    class Seen(torch.nn.Module):
        def forward(self, *images: torch.Tensor) -> torch.Tensor:
            assert all(one.dtype == torch.uint8 and one.shape[1:] == (3, 16, 12) and len(one) <= PART for one in images)
            values = [one.float().flatten(2) for one in images]
            return values[0] if len(images) == 1 else (values[0] - values[1]).abs().mean((1, 2))

    monkeypatch.setattr(inception, "pretrained", lambda *, where: Seen())
    monkeypatch.setattr(lpips, "trained", lambda name, size, *, where: Seen())
    found = saccade.eval(runs["vae"].path, features="inception", lpips="vgg")
    assert {"fid_inception", "kid_inception", "perceptual_inception", "lpips_vgg"} <= set(found.metrics)
    assert found.metrics["lpips_vgg"] > 1  # type: ignore[operator]
    low, high = found.intervals["lpips_vgg"]
    assert low < found.metrics["lpips_vgg"] < high  # type: ignore[operator]
    other = saccade.eval(runs["vae"].model, drawn, split="test", features="inception", lpips="vgg")
    assert dict(other.metrics) == pytest.approx(dict(found.metrics))
    with pytest.raises(UserError, match="no encoder"):
        saccade.eval(runs["dcgan"].path, lpips="alex")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **words: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UserError, match=r"pt_inception-2015-12-05-6726825d.pth .*put it there as"):
        saccade.eval(runs["dcgan"].path, features="inception")
    shutil.copytree(drawn, tmp_path / "damaged")
    next((tmp_path / "damaged").rglob("*.png")).write_bytes(b"")
    with pytest.raises(UserError, match="put it there as"):  # no image is read before
        train(tmp_path / "damaged", tmp_path / "r", "vae", set={"generation.features": "inception"})
    with pytest.raises(UserError, match=r"under apache-2\.0, must be under mit"):
        train(drawn, tmp_path / "r", "vae", set={"generation.features": "inception"}, license="mit")
