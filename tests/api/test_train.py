"""Training from Python: what a run leaves, repeating it, starting from weights, models of timm, bad files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.core import modelfile
from saccade.core.progress import Silent
from saccade.training import budget, precision

MODEL = "small_resnet_8px"


class Said(Silent):
    """Keeps the messages to the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def train(data: Path, out: Path, **options: Any) -> Run:
    """The cheapest run there is."""
    given = {"model": MODEL, "size": 16, "batch": 8, "epochs": 1, "device": "cpu", "progress": Silent(), **options}
    return saccade.train(data, out=out, **given)


def weights_of(path: Path) -> dict[str, Any]:
    return {
        name: np.frombuffer(buffer.data, np.float32).reshape(buffer.shape)
        for name, buffer in modelfile.load(path)[0].items()
        if buffer.dtype == "F32"
    }


def add_broken(folder: Path, name: str = "broken.png") -> Path:
    good = next(path for path in sorted(folder.iterdir()) if path.suffix == ".png")
    (folder / name).write_bytes(good.read_bytes()[:60])
    return folder / name


def test_what_a_run_leaves(run: Run, shapes: Path) -> None:
    facts = run.to_dict()
    assert set(facts) >= {"run", "model", "task", "metrics", "seconds", "steps", "images_per_second"}
    assert (facts["task"], facts["steps"]) == ("classify", 12), "two epochs of ceil(84 / 16) steps"
    assert facts["seconds"] > 0 and facts["images_per_second"] > 0
    assert set(facts["metrics"]) >= {"accuracy", "top5_accuracy", "f1_macro", "ece"}
    assert 0 <= facts["metrics"]["accuracy"] <= 1
    names = {path.name for path in run.path.iterdir()}
    assert names >= {"run.json", "metrics.jsonl", "best.safetensors", "last.safetensors", "checkpoints", "tensorboard", "report.html"}
    assert not [name for name in names if name.startswith(".tmp")]
    record = json.loads((run.path / "run.json").read_text())
    assert record["state"] == "done"
    assert record["data"]["path"] == str(shapes)
    assert record["data"]["counts"]["val"] == [3] * 6
    assert (record["config"]["seed"], record["config"]["size"], record["resolved"]["total_steps"]) == (5, [33, 20], 12)
    assert record["versions"]["torch"] and record["time"]["started"] and record["time"]["ended"]
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row.get("split") == "val"] == [6, 12]
    assert max(row["step"] for row in rows if "loss" in row and "split" not in row) == 12
    answers = [json.loads(line) for line in (run.path / "predictions" / "val.jsonl").read_text().splitlines()]
    assert len(answers) == 18
    assert np.mean([row["correct"] for row in answers]) == pytest.approx(facts["metrics"]["accuracy"])


def test_test_images_are_never_read_by_train(shapes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shapes, tmp_path / "data")
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"spoiled")
    assert train(data, tmp_path / "r").record["state"] == "done"


def test_a_runs_own_run_json_repeats_it_to_the_bit(run: Run, tmp_path: Path) -> None:
    again = saccade.train(config=run.path / "run.json", out=tmp_path / "again", progress=Silent())
    assert again.config == run.config
    for name in ("best.safetensors", "last.safetensors"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes(), name
    other = saccade.train(config=run.path / "run.json", seed=6, out=tmp_path / "other", progress=Silent())
    assert other.config.seed == 6, "an option goes before the file"
    assert (other.path / "best.safetensors").read_bytes() != (run.path / "best.safetensors").read_bytes()


def test_a_configuration_of_a_few_keys_changes_the_recipe_in_these_only(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"epochs": 1, "seed": 9, "batch": 8, "augment": {"flip": 0.25}}')
    run = saccade.train(tiny_folder, config=file, device="cpu", out=tmp_path / "r", progress=Silent())
    config = run.config
    assert (config.epochs, config.minutes, config.seed, config.batch, config.augment.flip) == (1, None, 9, 8, 0.25)
    assert config.model, "the rest is the recipe's"
    assert config.size != (224, 224), "and so is the size"
    assert any(line.startswith("model") for line in run.to_dict()["reasons"])


def test_what_was_set_twice_and_the_data_of_a_configuration(tiny_folder: Path, tmp_path: Path) -> None:
    run = train(tiny_folder, tmp_path / "r", set={"lr": 0.01, "epochs": 2, "data": "/nowhere"})
    assert (run.config.lr, run.config.epochs, run.config.data) == (0.01, 2, str(tiny_folder))
    assert run.to_dict()["steps"] == 2 * -(-21 // 8)


@pytest.mark.parametrize("size", [17, "17", "17x11", (17, 11)])
def test_sizes_in_each_spelling(tiny_folder: Path, tmp_path: Path, size: Any) -> None:
    run = train(tiny_folder, tmp_path / "r", size=size)
    height, width = (17, 11) if size in ("17x11", (17, 11)) else (17, 17)
    assert run.config.size == (height, width)
    assert saccade.load(run.model, device="cpu").card.input.size == (height, width)


def test_the_command_in_the_record_repeats_the_run_and_is_not_the_hosts(run: Run, shapes: Path, tmp_path: Path) -> None:
    import shlex

    from saccade.cli.main import main

    words = shlex.split(run.record["command"])
    assert words[:2] == ["saccade", "train"], "not the arguments of whoever imported us"
    assert main([*words[1:], "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert (tmp_path / "again" / "best.safetensors").read_bytes() == run.model.read_bytes()


# Weights and models


def test_weights_of_a_model_with_other_classes(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    said = Said()
    new = train(tiny_folder, tmp_path / "r", weights=run.model, set={"lr": 0.0, "ema": 0.0}, progress=said)
    before, after = weights_of(run.model), weights_of(new.path / "last.safetensors")
    (head,) = [name for name in after if name.endswith("head.weight")]
    assert before[head].shape[0] == 6 and after[head].shape[0] == 3
    kernels = [name for name, value in after.items() if value.ndim == 4]
    assert kernels
    for name in kernels:  # at a rate of zero what was taken stays as it was
        assert np.array_equal(before[name], after[name]), name
    assert any("took" in line and "tensors" in line for line in said.lines)


def test_what_is_known_of_a_class_is_kept(run: Run, shapes: Path, tmp_path: Path) -> None:
    """Of classes of the same name, whatever their place; of the others nothing."""
    for split in ("train", "val"):
        for source, name in (("circle", "apple"), ("star", "star"), ("ring", "ring"), ("cross", "zebra")):
            shutil.copytree(shapes / split / source, tmp_path / "set" / split / name)
    said = Said()
    new = train(tmp_path / "set", tmp_path / "r", weights=run.model, size=(33, 20), set={"lr": 0.0, "ema": 0.0}, progress=said)
    before, after = weights_of(run.model), weights_of(new.path / "last.safetensors")
    there, here = run.record["data"]["classes"], new.record["data"]["classes"]
    assert here == ["apple", "ring", "star", "zebra"]
    for kind in ("weight", "bias"):
        (head,) = [name for name in after if name.endswith(f"head.{kind}")]
        for name in ("ring", "star"):
            assert np.array_equal(after[head][here.index(name)], before[head][there.index(name)])
        assert kind == "bias" or not any(np.array_equal(after[head][here.index("apple")], row) for row in before[head])
    assert any("of 2 of 4 classes what it knows of them" in line for line in said.lines)


def test_weights_that_do_not_fit_at_all(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    add_broken(tiny_folder / "green")  # is not what is said: no image is read before
    with pytest.raises(UserError, match="of this network, must be 50% at least") as caught:
        train(tiny_folder, tmp_path / "r", model="resnet10t", size=32, weights=run.model)
    assert MODEL in caught.value.fix
    assert not (tmp_path / "r").exists()


def test_weights_that_cannot_be_had_are_missed_before_images_are_read(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_broken(tiny_folder / "green")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **words: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UserError, match="cannot fetch the weights of torchvision/squeezenet1_1"):
        train(tiny_folder, tmp_path / "r", model="torchvision/squeezenet1_1", pretrained=True, size=32)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("at step 1: widen features.9 2", "has no module 'features.9'"), ("when map stalls 1: freeze head", "when accuracy stalls")],
)
def test_edits_that_cannot_be_made_are_refused_before_images_are_read(tiny_folder: Path, tmp_path: Path, text: str, said: str) -> None:
    add_broken(tiny_folder / "green")
    with pytest.raises(UserError, match=said):
        train(tiny_folder, tmp_path / "r", edits=[text])
    assert not (tmp_path / "r").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t"])
def test_a_timm_model_by_name_goes_the_whole_way(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    run = train(tiny_folder, tmp_path / "r", model=name, size=32)
    assert run.to_dict()["state"] == "done"
    model = saccade.load(run.model, device="cpu")
    assert model.card.architecture["name"] == name
    images = sorted(tiny_folder.rglob("*.png"))[:2]
    results = model.predict(images, progress=Silent())
    assert len(results) == 2
    again = run.predict(images, progress=Silent())
    assert np.array_equal(results[0].probabilities, again[0].probabilities), "the file holds the whole model"
    explained = model.explain(images[:1], progress=Silent())
    assert explained[0].map.shape == (17, 11)
    assert run.evaluate(progress=Silent()).metrics["accuracy"] == pytest.approx(run.metrics["accuracy"])


def test_load_gives_an_ordinary_module_that_takes_pixels(run: Run) -> None:
    import torch
    from torch import nn

    model = saccade.load(run.model, device="cpu")
    assert isinstance(model.module, nn.Module) and not model.module.training
    pixels = torch.randint(0, 256, (2, 3, 33, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model.module(pixels)
    assert logits.shape == (2, 6) and logits.dtype == torch.float32
    results = model.predict([image.permute(1, 2, 0).numpy() for image in pixels], progress=Silent())
    for result, row in zip(results, logits.softmax(1), strict=True):
        assert np.allclose(result.probabilities, row.numpy(), atol=1e-6)
    loaded = saccade.load(run.path, device="cpu")
    assert loaded.path == run.model, "a run stands for its best model"


# Bad files


def test_bad_files_are_all_named_and_nothing_is_written(tiny_folder: Path, tmp_path: Path) -> None:
    add_broken(tiny_folder / "green")
    (tiny_folder / "blue squares" / "empty.jpg").write_bytes(b"")
    said = Said()
    with pytest.raises(UserError) as caught:
        train(tiny_folder, tmp_path / "r", progress=said)
    assert "2 images cannot be read" in caught.value.message
    assert "green/broken.png" in caught.value.message and "blue squares/empty.jpg" in caught.value.message
    assert "--skip-bad" in caught.value.fix
    assert not any("left out" in line for line in said.lines), "nothing was left out: the run was refused"
    assert not (tmp_path / "r").exists()


def test_skip_bad_counts_goes_on_and_the_report_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    for number in range(4):  # enough that validation, chosen by hash, is likely to hold one too
        add_broken(tiny_folder / "green", f"broken{number}.png")
    (tiny_folder / "green" / "notes.txt").write_text("no image")
    said = Said()
    run = train(tiny_folder, tmp_path / "r", skip_bad=True, progress=said)
    assert any("4" in line and "left out" in line for line in said.lines), said.lines
    record = json.loads((run.path / "run.json").read_text())
    assert sorted(row["path"] for row in record["data"]["bad"]) == [f"green/broken{number}.png" for number in range(4)]
    counts = record["data"]["counts"]
    assert sum(sum(numbers) for numbers in counts.values()) == 24, "what was left out is not counted as used"
    assert record["data"]["ignored"] == 1
    report = run.report.read_text()
    assert "green/broken0.png was left out" in report
    assert "1 file" in report and "without an image suffix" in report
    assert run.evaluate(progress=Silent()).metrics["accuracy"] is not None, "what training left out, evaluation leaves out"


def test_a_class_of_which_nothing_is_left_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    for path in (tiny_folder / "green").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="green"):
        train(tiny_folder, tmp_path / "r", skip_bad=True)
    assert not (tmp_path / "r").exists()


def test_exif_turns_the_image_and_is_not_in_the_report(tiny_folder: Path, tmp_path: Path) -> None:
    import base64
    import re

    secret = "Fernsehturm 52.5208N 13.4095E"
    for path in tiny_folder.rglob("*.jpg"):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112], exif[0x010E], exif[0x9286] = 6, secret, secret
        exif.get_ifd(0x8825)[2] = (52.0, 31.0, 14.9)
        image.save(path, exif=exif)
        assert secret.encode() in path.read_bytes()
    run = train(tiny_folder, tmp_path / "r")
    run.explain(sorted(tiny_folder.rglob("*.jpg")), progress=Silent())
    page = run.report.read_text()
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)", page)]
    assert len(pictures) > 3
    written = [path.read_bytes() for path in run.path.rglob("*") if path.is_file()]
    for data in [*pictures, *written]:
        assert b"Exif" not in data and secret.encode() not in data
    assert secret not in page


def test_no_images_leaves_no_picture_in_the_report(tiny_folder: Path, tmp_path: Path) -> None:
    with_pictures = train(tiny_folder, tmp_path / "with").report.read_text()
    without = train(tiny_folder, tmp_path / "without", images=False)
    assert with_pictures.count('class="photo') > 0
    assert without.report.read_text().count('class="photo') == 0
    without.evaluate(progress=Silent())
    assert without.report.read_text().count('class="photo') == 0, "a later evaluation keeps to it"


def test_another_torch_resumes_only_when_told_and_the_record_says_so(shapes: Path, tmp_path: Path) -> None:
    train(shapes, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    now, record["versions"]["torch"] = record["versions"]["torch"], "2.0.1"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"trained with torch 2\.0\.1, this is") as told:
        saccade.train(out=tmp_path / "run", resume=True, progress=Silent())
    assert "--other-torch" in told.value.fix
    run = saccade.train(out=tmp_path / "run", resume=True, other_torch=True, progress=Silent())
    assert run.record["versions"]["torch"] == now
    (event,) = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert event == {"event": "torch", "from": "2.0.1", "to": now}
    saccade.train(out=tmp_path / "run", resume=True, progress=Silent())  # told once
    with pytest.raises(UserError, match="--other-torch goes with --resume"):
        train(shapes, tmp_path / "other", other_torch=True)


def test_sharding_alone_is_refused_before_anything_is_written(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--shard needs several processes"):
        train(shapes, tmp_path / "run", shard=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("asked", "seconds", "taken"), [("auto", 0.5, "bf16"), ("auto", 0.95, "fp32"), ("fp32", 0.5, "fp32")])
def test_a_run_by_the_clock_computes_in_what_is_faster(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, seconds: float, taken: str
) -> None:
    def measured(ways: Sequence[Callable[[int], None]], *, paced: bool) -> list[float]:
        found = []
        for way in ways:
            way(0)
            found.append(0.001 * (seconds if computed[-1] == "bf16" else 1.0))
        return found

    def autocast(number: str, on: torch.device) -> torch.autocast:
        computed.append(number)
        return real(number, on)

    computed: list[str] = []
    real, said = precision.autocast, Said()
    monkeypatch.setattr(precision, "autocast", autocast)
    monkeypatch.setattr(budget, "measure_steps", measured)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    run = train(tiny_folder, tmp_path / "run", minutes=0.05, precision=asked, progress=said)
    resolved = run.record["resolved"]
    assert resolved["precision"] == taken == computed[-1]
    assert resolved["seconds_per_step"] == pytest.approx(0.001 * (seconds if taken == "bf16" else 1))
    assert any(line.startswith("precision: bf16, 2.0 times") for line in said.lines) == (taken == "bf16")


def test_a_format_that_fails_is_not_taken(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def autocast(number: str, on: torch.device) -> torch.autocast:
        if number == "bf16":
            raise RuntimeError('"some_kernel" not implemented for\n"BFloat16"')
        return real(number, on)

    real, said = precision.autocast, Said()
    monkeypatch.setattr(precision, "autocast", autocast)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    run = train(tiny_folder, tmp_path / "run", minutes=0.05, progress=said)
    assert run.record["resolved"]["precision"] == "fp32"
    assert 'precision: fp32, as a step in bf16 failed: "some_kernel" not implemented for "BFloat16"' in said.lines
