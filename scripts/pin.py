"""Write exact pins into pyproject.toml: the environment that the tests passed in, and the tools that build the package.

    uv lock --upgrade && uv sync --group lint && uv run pytest && uv run --group lint python scripts/pin.py

Pins are `[tool.uv]` constraints: they say which version is taken of what somebody wants, and want nothing themselves, so that those of
Linux's CUDA packages do not disturb macOS. They carry no addresses, unlike a lock file (which git ignores).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
OWN_TOOLS = {"saccade", "pip", "uv", "wheel"}  # ourselves, and what installs: not what is installed

# Asks the build backend itself what it needs beyond `requires`, as an installer does.
ASK_BACKEND = """
import hatchling.build as backend
print(*backend.get_requires_for_build_wheel(), *backend.get_requires_for_build_editable(), sep="\\n")
"""


def normal(name: str) -> str:
    """The normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pin(name: str, version: str) -> str:
    """`name==version`; a local tag such as +cpu names a build, not a release, and is left out."""
    return f"{normal(name)}=={version.partition('+')[0]}"


def installed() -> list[str]:
    """Pins of all that is installed beside this interpreter."""
    rows = ((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())
    return sorted({pin(name, version) for name, version in rows if normal(name) not in OWN_TOOLS})


def wanted(project: dict[str, object]) -> set[str]:
    """Names that pyproject.toml itself asks for: dependencies, extras and groups."""
    table = project["project"]
    groups = project.get("dependency-groups", {})
    if not isinstance(table, dict) or not isinstance(groups, dict):
        raise SystemExit("pyproject.toml: project and dependency-groups must be tables")
    extras = table.get("optional-dependencies", {})
    lists = [table["dependencies"], *extras.values(), *groups.values()]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for rows in lists for text in rows if isinstance(text, str)]
    return {normal(name) for name in names}


def build_pins(requires: Iterable[str]) -> list[str]:
    """Pins of the build backend and of all it needs, found by installing it into a temporary environment."""
    with tempfile.TemporaryDirectory(prefix="saccade-pin-") as folder:
        # From a folder without a pyproject.toml, or the constraints of this one would be taken up.
        environment = {**os.environ, "VIRTUAL_ENV": f"{folder}/venv"}

        def run(*command: str) -> str:
            return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

        run("uv", "venv", "--quiet", "--python", sys.executable, "venv")
        run("uv", "pip", "install", "--quiet", *requires)
        more = run(f"{folder}/venv/bin/python", "-c", ASK_BACKEND).split("\n")
        run("uv", "pip", "install", "--quiet", *requires, *filter(None, more))
        rows = (line.split("==") for line in run("uv", "pip", "freeze").split())
        return sorted(pin(name, version) for name, version in rows)


def rewrite(text: str, key: str, pins: Iterable[str]) -> str:
    """`text` of a pyproject.toml with the array `key` of [tool.uv] replaced, or added at the table's end."""
    array = f"{key} = [\n" + "".join(f'  "{row}",\n' for row in pins) + "]\n"
    start = text.index("[tool.uv]\n")
    end = re.compile(r"^\[(?!tool\.uv\]\n)|\Z", re.M).search(text, start)
    table = text[start : end.start() if end else len(text)]
    body, found = re.subn(rf"^{re.escape(key)} = \[\n.*?^\]\n", lambda _: array, table, flags=re.M | re.S)
    return text.replace(table, body if found else f"{table.rstrip()}\n{array}\n")


def main() -> None:
    path = REPO / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    project = tomllib.loads(text)
    pins = installed()
    if missing := wanted(project) - {row.partition("==")[0] for row in pins}:
        raise SystemExit(f"not installed here: {', '.join(sorted(missing))}; run `uv sync --all-extras --all-groups` and the tests first")
    for key, rows in (
        ("constraint-dependencies", pins),
        ("build-constraint-dependencies", build_pins(project["build-system"]["requires"])),
    ):
        text = rewrite(text, key, rows)
        print(f"{key}: {len(rows)} pins")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
