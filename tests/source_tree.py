"""The source files of saccade as syntax trees, for the tests that hold promises over them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "src" / "saccade"
_DOTTED = re.compile(r"saccade(\.[a-z_]\w*)+(:\w+)?")


@dataclass(frozen=True)
class Source:
    """One file: `path` relative to the package ("core/files.py"), its text and tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """The module's name within the package, without `__init__`: ("core", "files")."""
        parts = tuple(self.path.removesuffix(".py").split("/"))
        return parts[:-1] if parts[-1] == "__init__" else parts


@dataclass(frozen=True)
class Import:
    """One import: the module's full name, whether it runs with the file (not in a function), and its line."""

    name: str
    at_import: bool
    line: int


def sources() -> list[Source]:
    """Every file of the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    texts = [(str(p.relative_to(PACKAGE).as_posix()), p.read_text(encoding="utf-8")) for p in paths]
    return [Source(path, text, ast.parse(text, path)) for path, text in texts]


def imports(source: Source) -> list[Import]:
    """All imports but those for type checkers, relative ones resolved, `from a import b` as "a.b".

    A string constant that is the dotted name of a module of ours counts as an import too: that is how lazy tables name them.
    """
    return list(_imports(source, source.tree, at_import=True))


def _imports(source: Source, node: ast.AST, *, at_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = at_import and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, at_import, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(source, child)
            yield from (Import(f"{base}.{alias.name}", at_import, child.lineno) for alias in child.names)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str) and _names_a_module(child.value):
            yield Import(child.value.partition(":")[0], False, child.lineno)
        elif isinstance(child, ast.If) and _for_type_checkers(child.test):
            for other in child.orelse:
                yield from _imports(source, other, at_import=at_import)
        else:
            yield from _imports(source, child, at_import=inside)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.path.split("/")[:-1]
    package = ["saccade", *package][: len(package) + 2 - node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _names_a_module(text: str) -> bool:
    if not _DOTTED.fullmatch(text):
        return False
    place = PACKAGE.joinpath(*text.partition(":")[0].split(".")[1:])
    return place.is_dir() or place.with_suffix(".py").is_file()


def _for_type_checkers(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def functions(source: Source) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(qualified name, node) of every function and method."""
    yield from _functions(source.tree, "")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        name = f"{prefix}{child.name}" if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, child
        yield from _functions(child, f"{name}." if name else prefix)
