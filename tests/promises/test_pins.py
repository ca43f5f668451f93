"""The pins in pyproject.toml: exact, complete for what is asked for, without addresses; and the script that writes them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from types import ModuleType

import pytest

from source_tree import REPO

TEXT = (REPO / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)
KEYS = ("constraint-dependencies", "build-constraint-dependencies")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pin", REPO / "scripts" / "pin.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _names(key: str) -> set[str]:
    return {row.partition("==")[0] for row in PROJECT["tool"]["uv"][key]}


@pytest.mark.parametrize("key", KEYS)
def test_pins_are_exact_sorted_and_without_addresses(key: str) -> None:
    rows = PROJECT["tool"]["uv"][key]
    assert rows == sorted(set(rows))
    assert [row for row in rows if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", row)] == []


def test_all_that_is_asked_for_is_pinned(script: ModuleType) -> None:
    assert script.wanted(PROJECT) - _names(KEYS[0]) == set()
    assert {script.normal(name) for name in PROJECT["build-system"]["requires"]} - _names(KEYS[1]) == set()


def test_every_dependency_has_a_lower_bound() -> None:
    rows = [
        *PROJECT["project"]["dependencies"],
        *(r for rows in PROJECT["project"].get("optional-dependencies", {}).values() for r in rows),
    ]
    assert [row for row in rows if ">=" not in row and not row.startswith("saccade[")] == []


@pytest.mark.processes
def test_no_lock_file_is_committed() -> None:
    done = subprocess.run(["git", "ls-files", "*.lock", "*pylock*.toml"], cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert done.stdout == ""


def test_rewriting_replaces_adds_and_is_idempotent(script: ModuleType) -> None:
    text = '[a]\nx = 1\n\n[tool.uv]\ncompile-bytecode = true\n\n[tool.ruff]\nconstraint-dependencies = ["not mine"]\n'
    once = script.rewrite(script.rewrite(text, KEYS[0], ["b==1", "c==2"]), KEYS[1], ["d==3"])
    made = tomllib.loads(once)
    assert made["tool"]["uv"] == {"compile-bytecode": True, KEYS[0]: ["b==1", "c==2"], KEYS[1]: ["d==3"]}
    assert made["tool"]["ruff"] == {KEYS[0]: ["not mine"]}
    assert script.rewrite(script.rewrite(once, KEYS[0], ["b==1", "c==2"]), KEYS[1], ["d==3"]) == once
    assert tomllib.loads(script.rewrite(once, KEYS[0], ["b==2"]))["tool"]["uv"][KEYS[0]] == ["b==2"]


def test_local_tags_are_left_out(script: ModuleType) -> None:
    assert script.pin("Torch_Vision.x", "0.29.2+cpu") == "torch-vision-x==0.29.2"
