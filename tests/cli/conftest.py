"""A pretended `saccade.api`: these tests are about parsing, printing and exit codes, and must not train a network."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import saccade

RUN = {
    "run": "runs/my photos-1",
    "model": "runs/my photos-1/best.safetensors",
    "task": "classify",
    "metrics": {"accuracy": 0.98765, "ece": None},
    "seconds": 32.126,
    "steps": 1200,
    "images_per_second": 1933.6,
    "reasons": ["model small: 28x28 grey images"],
}
EVALUATION = {
    "task": "classify",
    "metrics": {"accuracy": 0.9, "top5_accuracy": None},
    "intervals": {"accuracy": [0.85, 0.95]},
    "per_class": [{"class": "[b]cat", "precision": 0.5, "recall": 1.0, "images": 1234, "confused": ["dog"]}],
}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images are kept for this session, not in the home of whoever tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class Predictions:
    """Like the real one: a sequence with `.failed`, `.to_dict`, `.save`."""

    def __init__(self, results: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
        self.results = results
        self.failed = failed

    def __len__(self) -> int:
        return len(self.results)

    def to_dict(self) -> dict[str, Any]:
        return {"results": self.results, "failed": self.failed, "images_per_second": 12.5}

    def save(self, path: Path, form: str) -> None:
        path.write_text(f"{form}\n" + "".join(f"{row['source']},{row['label']}\n" for row in self.results), encoding="utf-8")


class FakeApi(types.ModuleType):
    """Each function notes its arguments in `calls` and gives back `answer`, or raises it."""

    def __init__(self) -> None:
        super().__init__("saccade.api")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answer: Any = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            if callable(self.answer) and not isinstance(self.answer, type):
                return self.answer(**options)
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        return call


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The pretended module, in the place of the real one."""
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "saccade.api", fake)
    monkeypatch.setattr(saccade, "api", fake, raising=False)
    return fake


def result(**facts: Any) -> types.SimpleNamespace:
    """An object with `.to_dict()` giving `facts["data"]`, and the other facts as attributes."""
    data = facts.pop("data")
    return types.SimpleNamespace(to_dict=lambda: data, **facts)


@pytest.fixture
def a_run() -> types.SimpleNamespace:
    return result(data=RUN, report=Path("runs/my photos-1/report.html"), summary=[])


@pytest.fixture
def an_evaluation() -> types.SimpleNamespace:
    return result(data=EVALUATION)


@pytest.fixture
def predictions() -> Predictions:
    rows = [
        {"source": "a.png", "task": "classify", "label": "cat", "score": 0.98765, "labels": ["cat"], "scores": [0.98765], "size": [1, 2]}
    ]
    rows.append({**rows[0], "source": "bé\udcff.gif", "label": "dog", "notes": ["first frame"]})
    return Predictions(rows, [{"source": "c.jpg", "reason": "truncated"}])
