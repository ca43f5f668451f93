"""A realistic run on digits, and the names that attack the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.report.page import ReportData

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    '" style="display:none" x="',
    "\u202egnp.exe",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "bad\udcffbyte",
    "$x^2_{a}$",
    "two\nlines\x00\x1b[31m",
    "</style></title><style>*{display:none}",
    "&lt;b&gt;&#60;script&#62;",
    "--><!-- <svg onload=alert(1)>",
    "x" * 300,
    "العربية فئة",
]


@pytest.fixture(scope="session")
def hostile() -> list[str]:
    return HOSTILE


def rows(n: int = 60) -> list[dict[str, Any]]:
    training = [{"step": i, "epoch": i / 10, "loss": 2.0 * 0.95**i + 0.1, "lr": 0.01, "time": 0.1 * i} for i in range(1, n + 1)]
    evaluations = [
        {"step": i, "epoch": i / 10, "split": "val", "metrics": {"accuracy": 1 - 0.5 * 0.9**i, "loss": 0.95**i}}
        for i in range(10, n + 1, 10)
    ]
    return training + evaluations


def answer(i: int, truth: str, label: str, size: tuple[int, ...] = (17, 11, 3)) -> dict[str, Any]:
    pixels = np.random.Generator(np.random.Philox(i)).integers(0, 256, size).astype(np.uint8)
    return {
        "source": f"test/{truth}/{i}.png", "truth": truth, "label": label, "score": 0.9, "truth_score": 0.05,
        "picture": pixels, "map": pixels[::-1], "note": "",
    }  # fmt: skip


def make(names: list[str], each: int = 30, **changes: Any) -> ReportData:
    """A report over `names`; the last class is taken for the first three times."""
    k = len(names)
    matrix = np.diag([each] * k)
    matrix[k - 1, 0] += 3
    total = int(matrix.sum())
    per_class = [{"class": name, "images": each, "precision": 0.9 + 0.001 * i, "recall": 1.0, "f1": 0.95} for i, name in enumerate(names)]
    per_class[-1].update(precision=None, recall=0.2, f1=0.4)
    bins = [{"low": i / 5, "high": (i + 1) / 5, "count": 20 * (i > 1), "confidence": 0.1 + i / 5 if i > 1 else None,
             "accuracy": 0.12 + i / 5 if i > 1 else None} for i in range(5)]  # fmt: skip
    values: dict[str, Any] = {
        "title": "digits", "run": "runs/digits-1", "model": "small", "parameters": 272_474, "dataset": "data/digits",
        "counts": {"train": dict.fromkeys(names, 100), "test": dict.fromkeys(names, each)},
        "headline": [{"name": "accuracy", "value": 0.98888, "low": 0.975, "high": 0.9972}, {"name": "ece", "value": 0.02}],
        "split": "test", "images": total, "curves": rows(), "marks": [{"step": 30, "text": "batch halved: out of memory", "effect": ""}],
        "per_class": per_class, "classes": names, "confusion": matrix.tolist(), "reliability": bins,
        "mistakes": [answer(i, names[-1], names[0], (8, 8, 1) if i else (300, 200, 3)) for i in range(3)],
        "examples": [answer(9, names[0], names[0])], "reasons": ["small images: a small network"],
        "config": {"epochs": 30, "optim.lr": 0.003}, "environment": {"python": "3.12", "device": "cpu"},
        "command": "saccade train data/digits --seed 0",
        "next_steps": [{"text": "Name images:", "command": "saccade predict runs/digits-1 x/"}],
        "descent": ["resnet18.a1_in1k · licence apache-2.0"], "notes": ["skipped 1 file"],
    }  # fmt: skip
    return ReportData(**{**values, **changes})


@pytest.fixture(scope="session")
def make_report() -> Any:
    return make


@pytest.fixture(scope="session")
def digits() -> ReportData:
    return make([f"digit {i}" for i in range(10)])


@pytest.fixture(scope="session")
def attacked() -> ReportData:
    """Every text of the report is hostile."""
    return attack(HOSTILE)


@pytest.fixture(scope="session")
def harmless() -> ReportData:
    """The same report as `attacked` with tame texts."""
    return attack([f"harmless {i}" for i in range(len(HOSTILE))])


def attack(texts: list[str]) -> ReportData:
    plain = make(texts)
    wrong = [{**row, "source": texts[i], "note": texts[i + 1]} for i, row in enumerate(plain.mistakes)]
    return make(
        texts, title=texts[0], run=texts[1], model=texts[2], dataset=texts[3], task=texts[12], command=texts[10],
        reasons=texts, notes=texts * 20,
        counts={texts[0]: dict.fromkeys(texts, 3), texts[3]: dict.fromkeys(texts, 4)}, mistakes=wrong, examples=wrong,
        marks=[{"step": i, "text": text, "effect": text} for i, text in enumerate(texts)],
        config=dict(zip(texts, reversed(texts), strict=True)),
        environment={texts[1]: texts[0]}, descent=[texts[2] + texts[10]], next_steps=[{"text": texts[0], "command": texts[1]}],
        headline=[{"name": texts[0], "value": 0.5, "low": 0.4, "high": 0.6}],
    )  # fmt: skip


SHAPES = [(17, 11, 3), (40, 5000, 3), (64, 96, 4), (17, 11, 1), (17, 11), (700, 700, 3)]


def pixels(shape: tuple[int, ...]) -> Any:
    return np.random.Generator(np.random.Philox(len(shape))).integers(0, 256, shape).astype(np.uint8)


def make_gan(texts: list[str], **changes: Any) -> ReportData:
    """A run of a GAN whose figures are called `texts`."""
    steps = range(100, 3001, 100)
    training = [{"step": s, "epoch": s / 500, "judge/loss": 0.5 + 1e-5 * s, "judge/real": 1.0, "judge/made": -1.0, "judge/told_apart": 0.7,
                 "judge/penalty": 0.01, "generator/loss": 0.9, "lr": 1e-3, "time": {"step": 0.1}} for s in steps]  # fmt: skip
    found = dict.fromkeys(("precision_classifier", "recall_classifier", "coverage_classifier"), 0.9)
    evaluations = [{"step": s, "epoch": s / 500, "split": "val", "metrics": {"fid_classifier": 2e4 / s, **found}} for s in steps[9::10]]
    headline = [{"name": "fid_classifier", "value": 12.3, "low": 11.8, "high": 12.9}, {"name": "kid_classifier", "value": 0.0031},
                {"name": "precision_classifier", "value": 0.91}, {"name": "recall_classifier", "value": 0.6},
                {"name": "density_classifier", "value": 1.03}, {"name": "coverage_classifier", "value": 0.88},
                {"name": "spread_classifier", "value": 0.97}, {"name": "told_apart", "value": 0.62}]  # fmt: skip
    figures = [{"title": text, "text": text, "picture": pixels(SHAPES[i % len(SHAPES)])} for i, text in enumerate(texts)]
    values: dict[str, Any] = {
        "title": texts[0], "task": "generate", "run": "runs/digits-3", "model": "gan-small", "dataset": "data/digits",
        "counts": {"train": {"a": 54_000}, "val": {"a": 6000}}, "headline": headline, "split": "val", "images": 6000,
        "primary": "fid_classifier", "figures": figures, "curves": [*training, *evaluations], "classes": ["a", "b"],
        "command": "saccade train data/digits --task generate",
    }  # fmt: skip
    return ReportData(**{**values, **changes})


@pytest.fixture(scope="session")
def gan() -> ReportData:
    return make_gan([f"figure {i}" for i in range(len(SHAPES))])


@pytest.fixture(scope="session")
def vae() -> ReportData:
    steps = range(100, 3001, 100)
    training = [{"step": s, "epoch": s / 500, "loss": 100 / s, "bits_per_dim": 1.2, "divergence": 20.0, "lr": 1e-3} for s in steps]
    found = {"elbo": -700.0, "psnr": 20.0, "ssim": 0.9}
    evaluations = [{"step": s, "epoch": s / 500, "split": "val", "metrics": {"bits_per_dim": 1 + 9 / s, **found}} for s in steps[9::10]]
    headline = [{"name": "bits_per_dim", "value": 1.0213}, {"name": "elbo", "value": -12345.6, "low": -12_400, "high": -12_300},
                {"name": "psnr", "value": 24.13}, {"name": "ssim", "value": 0.912}, {"name": "fid_clusters", "value": 31.2}]  # fmt: skip
    return make_gan(
        ["reconstructions", "the latent map"], headline=headline, curves=[*training, *evaluations], primary="bits_per_dim", split="test"
    )


@pytest.fixture(scope="session")
def make_generated() -> Any:
    return make_gan
