"""Every public name is there and says what it is for."""

from __future__ import annotations

import inspect

import pytest

import saccade


@pytest.mark.parametrize("name", [name for name in saccade.__all__ if name != "__version__"])
def test_is_there_and_documented(name: str) -> None:
    value = getattr(saccade, name)
    text = inspect.getdoc(value)
    generated = f"{name}("  # what a dataclass writes for itself
    assert text, f"saccade.{name} has no docstring"
    assert not text.startswith(generated), f"saccade.{name} has only the docstring that dataclass makes"
    if inspect.isclass(value):
        methods = {k: v for k, v in vars(value).items() if not k.startswith("_") and (inspect.isfunction(v) or isinstance(v, property))}
        silent = [key for key, method in methods.items() if not inspect.getdoc(getattr(method, "fget", None) or method)]
        assert silent == [], f"saccade.{name}: public methods without a docstring"
    if inspect.ismodule(value):
        silent = [key for key in value.__all__ if not inspect.getdoc(getattr(value, key))]
        assert silent == [], f"saccade.{name}: functions without a docstring"


@pytest.mark.parametrize("name", ["train", "eval", "predict", "explain", "quickstart", "load", "load_run", "eval_predictions", "data"])
def test_the_verbs_are_public(name: str) -> None:
    assert name in saccade.__all__
