"""Data flows one way: the import table of docs/layout.md, held over every import of the package, in functions too."""

from __future__ import annotations

import ast
from fnmatch import fnmatch

import pytest

from source_tree import PACKAGE, Import, Source, imports, sources

STAGES = {"core", "data", "nn", "task", "objects", "queries", "tasks", "training", "editing", "evaluation", "explanation", "prediction"}
STAGES |= {"exporting", "report", "scale", "serving"}
MAY_IMPORT = {
    "core": set(),
    "data": {"core"},
    "nn": {"core"},
    "task": {"core", "data"},
    "objects": {"core", "data", "nn", "task"},
    "queries": {"core", "data", "nn", "task"},
    "tasks": {"core", "data", "nn", "task", "objects", "queries"},
    "training": {"core", "data", "nn", "task"},
    "editing": {"core", "nn", "task"},
    "evaluation": {"core", "data", "task", "prediction"},
    "explanation": {"core", "data", "nn", "task"},
    "prediction": {"core"},
    "exporting": {"core", "nn", "task", "prediction"},
    "report": {"core"},
    "scale": {"core", "data", "prediction"},
    "serving": {"core", "prediction"},
    "api": STAGES,
    "sklearn": {"api"},
    "cli": {"api", "core"},
    "": {"api", "core", "data"},  # saccade/__init__.py: the public names
    "__main__": {"cli"},
}

TORCH = {"torch", "torchvision", "timm", "captum", "torchmetrics"}
NO_TORCH = [
    "core/*",
    "prediction/*",
    "evaluation/*",
    "report/*",
    "serving/*",
    "cli/*",
    "task.py",
    "tasks/*/metrics.py",
    "objects/metrics.py",
    "__init__.py",
    "data/*",
]
TORCH_AFTER_ALL = {
    "prediction/torch_session.py": "the session around a torch module that the api hands in",
    "data/augment.py": "augmentation is torchvision's functional transforms",
    "data/composing.py": "so are changes of images with boxes and masks",
    "data/loader.py": "batches are tensors",
}
# Imports against the table: {(file, what): reason}. Each exception, of torch too, must be in use.
FLOW_EXCEPTIONS: dict[tuple[str, str], str] = {
    ("cli/data.py", "saccade.data"): "the package's public functions are the verbs of data, as those of the api are the others",
}


def stage(name: str) -> str | None:
    """The stage an import of ours reaches ("" for `saccade` and its public names), None for other people's modules."""
    parts = name.split(".")
    if parts[0] != "saccade":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else ""


def against_the_flow(source: Source) -> list[str]:
    """Imports of `source` that its line of the table does not list."""
    own = source.parts[0] if source.parts else ""
    if own not in MAY_IMPORT:
        return [f"{source.path}: {own!r} has no line in the import table"]
    wrong = []
    for item in imports(source):
        target = stage(item.name)
        fine = target in (None, own) or target in MAY_IMPORT[own]
        # `from saccade import __version__` is free; any other public name stands for the api behind it.
        fine = fine or (target == "" and (item.name == "saccade.__version__" or "api" in MAY_IMPORT[own]))
        if not fine and (source.path, item.name) not in FLOW_EXCEPTIONS:
            wrong.append(f"{source.path}:{item.line} imports {item.name}")
    return wrong


def room(parts: tuple[str, ...]) -> str | None:
    """The room that a module's name within the package lies in."""
    return parts[1] if len(parts) > 1 and parts[0] == "tasks" else None


def torch_imports(source: Source) -> list[Import]:
    """Imports of torch and of what needs it."""
    return [item for item in imports(source) if item.name.split(".")[0] in TORCH or item.name.startswith("safetensors.torch")]


def without_torch(source: Source) -> bool:
    """Whether the layout keeps torch out of this file."""
    return any(fnmatch(source.path, pattern) for pattern in NO_TORCH) and source.path not in TORCH_AFTER_ALL


ALL = sources()


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.path)
def test_imports_follow_the_table(source: Source) -> None:
    assert against_the_flow(source) == []


@pytest.mark.parametrize("source", [s for s in ALL if room(s.parts)], ids=lambda source: source.path)
def test_rooms_import_neither_each_other_nor_the_table_of_rooms(source: Source) -> None:
    own = room(source.parts)
    ours = [(item, item.name.split(".")[1:]) for item in imports(source) if item.name.startswith("saccade.tasks")]
    wrong = [f"{source.path}:{item.line} imports {item.name}" for item, parts in ours if room(tuple(parts)) != own]
    assert wrong == []


@pytest.mark.parametrize("source", [s for s in ALL if without_torch(s)], ids=lambda source: source.path)
def test_no_torch_here(source: Source) -> None:
    assert [f"{source.path}:{item.line} imports {item.name}" for item in torch_imports(source)] == []


def test_exceptions_are_in_use() -> None:
    by_path = {source.path: source for source in ALL}
    unused = [path for path in TORCH_AFTER_ALL if path not in by_path or not torch_imports(by_path[path])]
    unused += [str(key) for key in FLOW_EXCEPTIONS if key[0] not in by_path or key[1] not in {i.name for i in imports(by_path[key[0]])}]
    assert unused == [], "an exception that nobody needs any more must go"


def test_no_module_bears_the_name_of_a_verb() -> None:
    verbs = {path.stem for path in (PACKAGE / "cli").glob("*.py")} - {"__init__", "main", "options", "output", "data"}
    verbs |= {"train", "eval", "predict", "explain", "quickstart", "load", "load_run"}
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert modules & verbs == set()


def _source(path: str, text: str) -> Source:
    return Source(path, text, ast.parse(text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/x.py", "import saccade.data.sample"),
        ("core/x.py", "def f():\n    from ..data import sample"),
        ("core/x.py", "class A:\n    def f(self):\n        if True:\n            from saccade import data"),
        ("data/x.py", "from saccade import train"),
        ("report/x.py", "import importlib\nimportlib.import_module('saccade.data.sample')"),
        ("cli/x.py", "ROWS = {'a': 'saccade.data.sample:Sample'}"),
        ("extra/x.py", "import os"),
    ],
)
def test_the_check_sees_an_import_against_the_flow(path: str, text: str) -> None:
    assert against_the_flow(_source(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from saccade.data import sample"),
        ("core/x.py", "from .errors import UserError\nimport numpy"),
        ("data/formats/x.py", "from ..sample import Sample\nfrom ...core import errors"),
        ("cli/x.py", "from saccade import __version__, train\nfrom saccade.core import errors"),
        ("core/x.py", "KEY = 'saccade.nothing'"),
    ],
)
def test_the_check_lets_pass_what_the_table_allows(path: str, text: str) -> None:
    assert against_the_flow(_source(path, text)) == []


def test_the_check_sees_torch_in_a_function() -> None:
    source = _source("core/x.py", "def f():\n    import torchvision.ops\n")
    assert without_torch(source)
    assert torch_imports(source)
