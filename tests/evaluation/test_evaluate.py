"""evaluate: a session over a split, with progress, rows and intervals; nothing of it needs torch."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.evaluation.evaluate import evaluate, measure
from saccade.evaluation.intervals import bootstrap
from saccade.tasks.classification.metrics import ClassificationMetric

CLASSES = ("blue", "green", "red")


class Brightest:
    """A session that answers with the brightest channel; `scale` 0 makes it NaN."""

    def __init__(self, scale: float = 1.0) -> None:
        self.card = Card("classify", CLASSES, {"name": "brightest"}, InputSpec(3, (17, 11)))
        self.scale = scale

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if not len(images):
            raise RuntimeError("some runtimes take no empty batch")
        means = images.mean(axis=(2, 3), dtype=np.float32)[:, ::-1] * self.scale + (0.0 if self.scale else np.nan)
        return {"probabilities": means / means.sum(axis=1, keepdims=True)}


class Told:
    """A Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        self.calls.append(("start", name, total, unit))

    def advance(self, n: int = 1) -> None:
        self.calls.append(("advance", n))

    def note(self, text: str) -> None: ...

    def message(self, text: str) -> None: ...

    def finish(self) -> None:
        self.calls.append(("finish",))


def batches(n: int, size: int = 4, seed: int = 0) -> Iterator[tuple]:
    generator = np.random.default_rng(seed)
    for start in range(0, n, size):
        count = min(size, n - start)
        images = generator.integers(0, 255, (count, 3, 17, 11)).astype(np.uint8)
        truths = [int(t) for t in generator.integers(0, 3, count)]
        yield images, truths, [f"{CLASSES[t]}/{start + i}.png" for i, t in enumerate(truths)], [(17, 11)] * count


def test_rows_figures_and_progress():
    told, metric = Told(), ClassificationMetric(CLASSES)
    found = evaluate(Brightest(), batches(10), metric, progress=told, split="val", total=10)
    assert told.calls == [("start", "evaluate val", 10, "images"), ("advance", 4), ("advance", 4), ("advance", 2), ("finish",)]
    assert (found.task, found.split, found.images, len(found.predictions)) == ("classify", "val", 10, 10)
    assert found.seconds > 0
    first = found.predictions[0]
    assert list(first) == ["source", "truth", "label", "score", "correct", "scores"]
    assert first["source"].startswith(first["truth"] + "/")
    assert first["score"] == first["scores"][first["label"]] == max(first["scores"].values())
    assert found.metrics["accuracy"] == np.mean([row["correct"] for row in found.predictions])
    assert sum(row["images"] for row in found.per_class) == 10
    low, high = found.intervals["accuracy"]
    assert 0 <= low <= found.metrics["accuracy"] <= high <= 1
    assert "top5_accuracy" not in found.intervals


def test_the_answer_does_not_depend_on_batches_but_the_interval_on_the_seed():
    def once(size: int, seed: int):
        images = np.random.default_rng(1).integers(0, 255, (40, 3, 17, 11)).astype(np.uint8)
        truths = [i % 3 for i in range(40)]
        parts = [
            (
                images[a : a + size],
                truths[a : a + size],
                [f"{i}" for i in range(a, min(a + size, 40))],
                [(1, 1)] * len(truths[a : a + size]),
            )
            for a in range(0, 40, size)
        ]
        return evaluate(Brightest(), parts, ClassificationMetric(CLASSES), progress=Told(), split="test", seed=seed)

    assert once(7, 0).to_dict() == once(40, 0).to_dict()
    assert once(7, 0).metrics == once(7, 1).metrics
    assert once(7, 0).intervals != once(7, 1).intervals


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int):
    found = evaluate(Brightest(), batches(n), ClassificationMetric(CLASSES), progress=Told(), split="val")
    assert (found.images, found.intervals) == (n, {})
    assert (found.metrics["accuracy"] is None) == (n == 0)


def test_an_empty_batch_is_passed_over():
    nothing = (np.zeros((0, 3, 17, 11), np.uint8), [], [], [])
    rows = measure(Brightest(), [nothing, *batches(3), nothing], ClassificationMetric(CLASSES), progress=Told())
    assert len(rows) == 3


def test_a_broken_model_is_one_line_and_the_progress_ends():
    told = Told()
    with pytest.raises(UserError, match="NaN or infinity for 4 of 4"):
        evaluate(Brightest(0.0), batches(8), ClassificationMetric(CLASSES), progress=told, split="val")
    assert told.calls[-1] == ("finish",)


def test_bootstrap_level_and_degenerate_metric():
    metric = ClassificationMetric(CLASSES)
    measure(Brightest(), batches(60), metric, progress=Told())
    wide, narrow = bootstrap(metric, 60)["accuracy"], bootstrap(metric, 60, level=0.5)["accuracy"]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap(metric, 60) == bootstrap(metric, 60, resamples=1000, seed=0)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap(metric, 60, resamples=0)
    right = ClassificationMetric(CLASSES)
    right.update_labels([0, 1], [0, 1])
    assert bootstrap(right, 2) == {"accuracy": (1.0, 1.0), "f1_macro": (1.0, 1.0)}


@pytest.mark.processes
def test_runs_where_torch_cannot_be_imported(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})

        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("torch", "torchvision", "timm"):
                    raise ImportError("blocked: " + name)

        sys.meta_path.insert(0, Block())
        from pathlib import Path
        import test_evaluate as toy
        from saccade.core.progress import automatic
        from saccade.evaluation.predictions import read_predictions, score, write_predictions
        found = toy.evaluate(toy.Brightest(), toy.batches(9), toy.ClassificationMetric(toy.CLASSES), progress=automatic(True), split="val")
        path = write_predictions(Path("predictions"), found)
        truths = {{row["source"]: toy.CLASSES.index(row["truth"]) for row in found.predictions}}
        again = score(read_predictions(path), truths, toy.ClassificationMetric(toy.CLASSES), split="val")
        assert again.to_dict() == found.to_dict()
        found._repr_html_(), found.plot(), found.save("figures.json")
        try:
            import torch
        except ImportError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "blocked: torch\n"), done.stderr
    assert (tmp_path / "predictions" / "val.jsonl").read_text().count("\n") == 9
