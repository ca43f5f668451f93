"""The budgets of docs/layout.md. They are aims, not walls: where one makes the code worse, the reason stands here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest

from source_tree import Source, functions, sources

FILE_LINES, FUNCTION_LINES, ARGUMENTS, NESTING = 400, 60, 6, 3

# rule -> {place: reason}. A place is FILE or FILE:FUNCTION, with * as in file names; one that excuses nothing fails.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "file": {},
    "function": {},
    "arguments": {
        "api/*:*": "the options of a verb, in Python's clothes (design, section 3)",
        "data/__init__.py:*": "likewise",
        "data/builtin.py:make_shapes": "likewise",
        "evaluation/evaluate.py:evaluate": "time left cannot be shown without the total",
        "sklearn.py:*.__init__": "scikit-learn wants each option by name in the constructor",
        "tasks/*/models/*:*.__init__": "a network takes plain values, not a configuration object",
    },
    "nesting": {},
    "kwargs": {
        "cli/*:*": "click hands a verb its options by name; they go on to the api as they are",
        "exporting/onnx.py:*.spaced": "stands in the place of torch's linspace, whose options go on to it as they are",
        "editing/blocks.py:*": "modules that stand where any other stood are called as that was",
    },
    "print": {"cli/*": "the command line speaks"},
    "assert": {},
}

Found = tuple[str, str]  # rule, what is wrong and where: "core/files.py:f (61 lines)"


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many arguments a caller can give: self and cls do not count, nor do `*args` and `**kwargs`."""
    spec = function.args
    names = [a.arg for a in [*spec.posonlyargs, *spec.args]]
    if names and names[0] in ("self", "cls"):
        names = names[1:]
    return len(names) + len(spec.kwonlyargs)


def nesting(node: ast.AST) -> int:
    """How deep blocks stand in each other within one function; `elif` is beside its `if`, inner functions count for themselves."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        blocks = ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match
        chained = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child) + (isinstance(child, blocks) and not chained))
    return deepest


def over_budget(source: Source) -> Iterator[tuple[str, str, Any]]:
    """(rule, place, how much) of everything in one file that the budgets do not allow."""
    lines = source.text.count("\n")
    if lines > FILE_LINES:
        yield "file", source.path, f"{lines} lines"
    for name, node in functions(source):
        place = f"{source.path}:{name}"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        facts = [("function", length, FUNCTION_LINES), ("arguments", arguments(node), ARGUMENTS), ("nesting", nesting(node), NESTING)]
        facts.append(("kwargs", int(node.args.kwarg is not None), 0))
        yield from ((rule, place, f"{value}, at most {limit}") for rule, value, limit in facts if value > limit)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            yield "assert", source.path, f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield "print", source.path, f"line {node.lineno}"


def excuse(rule: str, place: str) -> str | None:
    """The pattern of the exception that covers `place`."""
    return next((pattern for pattern in EXCEPTIONS[rule] if fnmatch(place, pattern)), None)


FOUND = [row for source in sources() for row in over_budget(source)]


@pytest.mark.parametrize("rule", EXCEPTIONS)
def test_within_budget(rule: str) -> None:
    wrong = [f"{place} ({much})" for found, place, much in FOUND if found == rule and not excuse(rule, place)]
    assert wrong == [], f"{rule}: split it, or write the reason into EXCEPTIONS"


def test_exceptions_are_in_use() -> None:
    used = {(rule, excuse(rule, place)) for rule, place, _ in FOUND}
    unused = [(rule, pattern) for rule, rows in EXCEPTIONS.items() for pattern in rows if (rule, pattern) not in used]
    assert unused == [], "an exception that nobody needs any more must go"


BAD = """
def f(a, b, c, *, d, e, g, h, **kwargs):
    if a:
        for b in c:
            while d:
                with e:
                    assert g
    print(h)

class A:
    def m(self, a, b, c, d, e, f):
        if a:
            pass
        elif b:
            pass
        elif c:
            pass
        elif d:
            pass
"""


def test_the_check_sees_each_rule_broken() -> None:
    text = BAD + "def long():\n" + "    x = 1\n" * 400
    found = [(rule, place) for rule, place, _ in over_budget(Source("core/x.py", text, ast.parse(text)))]
    f = [(rule, "core/x.py:f") for rule in ("arguments", "nesting", "kwargs")]
    expected = [("file", "core/x.py"), *f, ("function", "core/x.py:long"), ("print", "core/x.py"), ("assert", "core/x.py")]
    assert sorted(found) == sorted(expected)
