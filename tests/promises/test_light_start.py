"""Start fast, and work without torch where the layout says so: real interpreters, looked at from inside."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from source_tree import sources

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "sklearn",
    "rich",
    "pydantic",
    "PIL",
    "matplotlib",
    "captum",
    "jinja2",
    "tensorboard",
}

REPORT = "import json, sys; print('\\n' + json.dumps(sorted(sys.modules)), file=sys.stderr)"
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "captum"}:
            raise ImportError(f"{name} is blocked by this test")
sys.meta_path.insert(0, Blocked())
"""

IMPORT_ALL = """
import importlib, traceback
bad = []
for name in NAMES:
    try:
        importlib.import_module(name)
    except Exception:
        bad.append(name)
        traceback.print_exc()
sys.exit(f"not importable without torch: {bad}" if bad else 0)
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def _modules(code: str) -> set[str]:
    """Top names of all modules that a fresh interpreter has loaded after `code`."""
    done = _run(f"import atexit\ndef report():\n    {REPORT}\natexit.register(report)\n{code}")
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.processes
@pytest.mark.parametrize(
    "code",
    [
        "import saccade",
        "import sys; sys.argv = ['saccade', '--help']; from saccade.cli.main import main; assert main() == 0",
        "import sys; sys.argv = ['saccade', '--version']; from saccade.cli.main import main; assert main() == 0",
    ],
    ids=["import", "help", "version"],
)
def test_starts_without_heavy_modules(code: str) -> None:
    assert _modules(code) & HEAVY == set()


@pytest.mark.processes
def test_the_check_sees_a_heavy_module() -> None:
    assert "numpy" in _modules("import saccade.core.results") & HEAVY


def torchless() -> list[str]:
    """The modules that must import where there is no torch."""
    modules = []
    for source in sources():
        first, name = source.parts[:1], ".".join(("saccade", *source.parts))
        room_metrics = first == ("tasks",) and source.parts[-1] == "metrics"
        if (first[:1] and first[0] in ("core", "task", "evaluation", "prediction", "report")) or room_metrics or source.parts == ("tasks",):
            modules.append(name)
    return [name for name in modules if name != "saccade.prediction.torch_session"]


@pytest.mark.processes
def test_imports_where_there_is_no_torch() -> None:
    names = torchless()
    assert {"saccade.core.modelfile", "saccade.task"} <= set(names)
    done = _run(f"{BLOCK}\nNAMES = {names!r}\n{IMPORT_ALL}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.processes
def test_the_block_blocks() -> None:
    done = _run(f"{BLOCK}\nimport torch")
    assert done.returncode == 1
    assert "blocked by this test" in done.stderr
