"""What the README says is true: its test command is CI's, its commands parse, its code runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from source_tree import REPO

SHELL = {"", "sh", "bash", "console", "shell", "text"}
PAGES = ("embeddings.md", "editing.md")  # of docs/ that are for users
_FENCE = re.compile(r"^(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(language, body) of every fenced or indented code block."""
    fenced = [(m["language"].lower(), m["body"]) for m in _FENCE.finditer(text)]
    rest = _FENCE.sub("", text)
    indented = re.findall(r"(?:^\n|\A)((?:(?:    |\t)[^\n]*\n)+)", rest, re.M)
    return fenced + [("", re.sub(r"^(    |\t)", "", body, flags=re.M)) for body in indented]


def shell_lines(text: str) -> list[str]:
    """The commands of its shell blocks: prompts and comments off, continued lines joined."""
    bodies = [body.replace("\\\n", " ") for language, body in code_blocks(text) if language in SHELL]
    return [re.sub(r"^\$ +", "", line.strip()) for body in bodies for line in body.splitlines() if line.strip()]


def saccade_commands(text: str) -> list[list[str]]:
    """The arguments of each `saccade ...`, `uv run saccade ...` or `python -m saccade ...` in the shell blocks."""
    found = []
    for line in shell_lines(text):
        for part in re.split(r"&&|\|\|?|;|(?<!\d)>{1,2}|\s#\s", line):
            match = re.match(r"\s*(?:uv run (?:--\S+ )*)?(?:python3? -m )?saccade(?:\s+(?P<rest>.*))?$", part)
            if match:
                found.append(shlex.split(match["rest"] or "", comments=True))
    return found


def test_commands(text: str) -> list[str]:
    """The lines that run the tests."""
    lines = [re.sub(r"\s+#.*$", "", line) for line in shell_lines(text)]
    return [line for line in lines if re.search(r"\bpytest\b", line) and not line.startswith("#")]


test_commands.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def readme() -> str:
    path = REPO / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    assert text.strip(), "there is no README.md yet, or it is empty"
    return text


def test_ci_runs_the_readmes_test_command_verbatim(readme: str) -> None:
    commands = test_commands(readme)
    ci = [line.strip() for line in (REPO / ".ci" / "run").read_text().splitlines()]
    assert commands, "the README must name the command that runs the tests in a code block"
    assert [command for command in commands if command not in ci] == [], "not a line of .ci/run"


def test_names_the_main_commands(readme: str) -> None:
    commands = saccade_commands(readme)
    assert ["quickstart"] in commands, "the main job must stand in a code block"
    assert any(command[:1] == ["train"] for command in commands)


def parse(args: list[str]) -> None:
    """Parse a command of saccade down to its verb, without running it; raises what click raises."""
    from saccade.cli.main import group

    command, name = group, "saccade"
    context = command.make_context(name, list(args), obj=time.monotonic())
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def wrong_commands(text: str) -> list[str]:
    """The commands that do not parse, and why."""
    import click

    from saccade.core.errors import UserError

    wrong = []
    for args in saccade_commands(text):
        try:
            parse(args)
        except click.exceptions.Exit:
            pass  # --help and --version end by themselves
        except (click.ClickException, UserError) as error:
            wrong.append(f"saccade {shlex.join(args)}: {error}")
    return wrong


def test_every_command_parses(readme: str) -> None:
    assert wrong_commands(readme) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page: str) -> None:
    text = (REPO / "docs" / page).read_text(encoding="utf-8")
    assert saccade_commands(text)
    assert wrong_commands(text) == []


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    """All blocks, in order, as one program."""
    run_blocks((REPO / "docs" / page).read_text(encoding="utf-8"), tmp_path, 300)


def test_python_blocks_compile_and_name_what_is_there(readme: str) -> None:
    import saccade

    blocks = [body for language, body in code_blocks(readme) if language in ("python", "py")]
    assert blocks, "the README shows the Python API"
    for body in blocks:
        compile(body, "README.md", "exec")
    names = {name for body in blocks for name in re.findall(r"\bsaccade\.(\w+)", body)}
    assert [name for name in sorted(names) if name not in saccade.__all__] == []


@pytest.mark.slow
@pytest.mark.processes
def test_python_blocks_run(readme: str, photos_folder: Path, tmp_path: Path) -> None:
    """All blocks, in order, as one program, where photos/ and path/to/my/photos are small folders of real photos."""
    for name in ("photos", "path/to/my/photos"):
        shutil.copytree(photos_folder, tmp_path / name)
    picture = next((photos_folder / "test").rglob("*.jpg"))
    for name in set(re.findall(r"[\w./-]+\.jpe?g", "\n".join(body for _, body in code_blocks(readme)))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / name)
    run_blocks(readme, tmp_path, 1800)


def run_blocks(text: str, folder: Path, seconds: int) -> None:
    """The Python blocks of a text as one program in a folder."""
    program = "\n".join(body for language, body in code_blocks(text) if language in ("python", "py"))
    assert program
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-4000:]


SAMPLE = """
Try it:

    pip install uv && uv run saccade quickstart

```sh
$ uv run saccade train path/to/my/photos --epochs 3 \\
    --seed 1   # a comment
uv run pytest          # the tests
saccade predict run a.jpg > out.json
```

```python
import saccade
```
"""


def test_the_reader_of_code_blocks() -> None:
    train = ["train", "path/to/my/photos", "--epochs", "3", "--seed", "1"]
    assert sorted(saccade_commands(SAMPLE)) == sorted([["quickstart"], train, ["predict", "run", "a.jpg"]])
    assert test_commands(SAMPLE) == ["uv run pytest"]
    assert [body for language, body in code_blocks(SAMPLE) if language == "python"] == ["import saccade\n"]


def test_the_parser_refuses_a_wrong_command() -> None:
    import click

    from saccade.core.errors import UserError

    with pytest.raises((click.ClickException, UserError), match="epcohs"):
        parse(["train", "x", "--epcohs", "3"])
    with pytest.raises((click.ClickException, UserError), match="trian"):
        parse(["trian", "x"])
    parse(["train", "x", "--epochs", "3"])
    parse(["data", "make", "shapes", "--n", "3", "--out", "x"])
