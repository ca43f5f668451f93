"""Nothing of ours unpickles, evaluates text or asks a shell: held over the syntax tree, since much of it fires no audit event."""

from __future__ import annotations

import ast

import pytest

from source_tree import PACKAGE, Source, imports, sources

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
CALLS = {
    "torch.load",
    "torch.jit.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "np.load",
    "numpy.load",
}
CALLS |= {"torch.hub.load", "torch.package.PackageImporter", "torch.serialization.load"}
CHILD = "nn/unpickling_process.py"
BUILTINS = {"eval", "exec", "__import__"}


def dangers(source: Source) -> list[str]:
    """What in `source` could run somebody else's code."""
    found = [
        f"{source.path}:{item.line} {item.name}" for item in imports(source) if {item.name, item.name.split(".")[0]} & (MODULES | CALLS)
    ]
    own = {node.name for node in source.tree.body if isinstance(node, ast.FunctionDef)} | _imported(source.tree)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
        if name in ("np.load", "numpy.load"):
            wrong = given.get("allow_pickle", "False") != "False"  # NumPy's own default
        else:
            wrong = name in CALLS or (name in BUILTINS and name not in own)
        if wrong or given.get("shell", "False") != "False" or given.get("weights_only", "True") != "True":
            found.append(f"{source.path}:{node.lineno} {ast.unparse(node)[:80]}")
    return found


def _imported(tree: ast.Module) -> set[str]:
    return {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_nothing_dangerous(source: Source) -> None:
    found = dangers(source)
    if source.path == CHILD:  # the one place, in a process that can do nothing else (tests/nn/test_unpickling.py)
        assert len(found) == 2 and all("torch.load(" in one and "weights_only=True" in one for one in found)
        return
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "import torch\ntorch.load('x', weights_only=True)",
        "from torch import load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "eval('1')",
        "exec('1')",
        "import yaml\nyaml.load('x', yaml.Loader)",
        "import os\nos.system('true')",
        "import subprocess\nsubprocess.run('true', shell=True)",
    ],
)
def test_the_check_sees_it(text: str) -> None:
    assert dangers(Source("core/x.py", text, ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["model.eval()", "def eval(a): ...\neval(1)", "import re\nre.compile('x')", "import numpy as np\nnp.load('x')"]
)
def test_the_check_lets_pass_what_is_harmless(text: str) -> None:
    assert dangers(Source("core/x.py", text, ast.parse(text))) == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
