"""Exit codes, one-line errors and the lazy group."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import click
import pytest

from saccade import __version__
from saccade.cli.main import VERBS, group, main
from saccade.core.errors import Interrupted, UserError

Captured = pytest.CaptureFixture[str]


def test_every_verb_of_the_table_loads_and_has_help(capsys: Captured) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"Usage: saccade {verb}")
        assert "--json" in out or verb == "data"


def test_help_lists_the_verbs_also_without_arguments(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    helped = capsys.readouterr().out
    assert main([]) == 0
    assert capsys.readouterr().out == helped
    assert all(f"\n  {verb} " in helped for verb in VERBS)


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"saccade {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["trian", "x"], "error: saccade: unknown verb 'trian' (did you mean train?)"),
        (["data", "mak"], "error: saccade data: unknown verb 'mak' (did you mean make?)"),
        (["train", "--modle", "x"], "error: saccade train: unknown option --modle (did you mean --model or --compile?)"),
        (["train", "x", "--zzz"], "error: saccade train: unknown option --zzz (see saccade train --help)"),
        (["predict", "run"], "error: saccade predict: missing argument 'INPUT...' (see saccade predict --help)"),
        (["eval"], "error: saccade eval: missing argument 'RUN|MODEL|EXPORT' (see saccade eval --help)"),
        (["eval", "--predictions", "f"], "error: saccade eval: missing argument 'DATA' (see saccade eval --help)"),
        (["train", "x", "--device", "tpu"], "error: --device: a device must be auto, cpu, mps, cuda or cuda:N, got 'tpu'"),
        (["train", "x", "--set", "lrr=1"], "error: --set: unknown key 'lrr' (did you mean lr, workers?)"),
        (["train", "x", "--set", "learning_rate=1"], "error: --set: unknown key 'learning_rate' (did you mean lr?)"),
        (["train", "x", "--batch", "0"], "error: --batch: a batch must be a number of images from 1 up, or auto, got '0'"),
        (["train", "x", "--size", "9y9"], "error: size: a size must be S or HxW in pixels (1 to 16384), got '9y9'"),
        (["data", "make", "circles", "--out", "x"], "error: data make: unknown kind of data 'circles' (did you mean shapes?)"),
    ],
)
def test_usage_errors_are_one_line(api: Any, capsys: Captured, argv: list[str], line: str) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()) == ("", [line])
    assert main([*argv, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [line]
    error = json.loads(captured.out)["error"]
    assert set(error) == {"message", "where", "fix"}
    assert error["message"] in line
    assert api.calls == []


def test_a_group_without_a_verb(capsys: Captured) -> None:
    assert main(["data"]) == 2
    assert capsys.readouterr().err == "error: saccade data: missing command (see saccade data --help)\n"


def test_json_after_two_dashes_is_an_input(api: Any, capsys: Captured) -> None:
    api.answer = UserError("no such file")
    assert main(["predict", "run", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""
    assert api.calls[0][1] == ("run", ["--json"])


def test_a_users_error_carries_where_and_fix(api: Any, capsys: Captured) -> None:
    api.answer = UserError("not an\nimage", where="a.png", fix="delete it")
    assert main(["train", "x", "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": {"message": "not an image", "where": "a.png", "fix": "delete it"}}
    assert captured.err == "error: a.png: not an image (delete it)\n"


def test_a_defect_shows_a_traceback_and_exits_1(api: Any, capsys: Captured) -> None:
    api.answer = ZeroDivisionError("division by zero")
    assert main(["train", "x", "--json"]) == 1
    captured = capsys.readouterr()
    assert "Traceback (most recent call last)" in captured.err
    assert "ZeroDivisionError: division by zero" in captured.err
    assert "a defect of saccade" in captured.err.splitlines()[-1]
    assert "ZeroDivisionError" in json.loads(captured.out)["error"]["message"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGINT, "stopped at step 7; saved in r"), 130, "interrupted: stopped at step 7; saved in r"),
        (Interrupted(signal.SIGTERM, "saved"), 143, "interrupted: saved"),
    ],
)
def test_interrupts_are_one_line(api: Any, capsys: Captured, error: BaseException, code: int, line: str) -> None:
    api.answer = error
    assert main(["train", "x"]) == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_full_disk_is_not_a_defect(api: Any, capsys: Captured) -> None:
    api.answer = OSError(errno.ENOSPC, "No space left on device", "runs/x")
    assert main(["train", "x"]) == 2
    assert capsys.readouterr().err == "error: runs/x: No space left on device\n"


def test_any_other_system_error_is_a_defect(api: Any, capsys: Captured) -> None:
    api.answer = BrokenPipeError(errno.EPIPE, "a worker has gone")
    assert main(["train", "x"]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_sigterm_raises_interrupted_and_the_handler_is_put_back(api: Any, capsys: Captured) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def long_work(**options: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    api.answer = long_work
    assert main(["eval", "run"]) == 143
    assert cleaned == [True]
    assert capsys.readouterr().err == "interrupted: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_finalizer_is_not_lost(api: Any, capsys: Captured, number: int, code: int) -> None:
    """What a finalizer raises, Python prints and drops."""
    hook = sys.unraisablehook

    class Interrupts:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def long_work(**options: Any) -> None:
        Interrupts()
        time.sleep(10)

    api.answer = long_work
    assert main(["eval", "run"]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert sys.unraisablehook is hook


def test_warnings_of_libraries_stay_out_of_sight(api: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    caught: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda *args, **options: caught.append(str(args[0])))

    def warn(**options: Any) -> None:
        warnings.warn("deprecated", FutureWarning, stacklevel=1)
        raise UserError("stop")

    api.answer = warn
    assert main(["train", "x"]) == 2
    assert caught == []


def test_the_clock_starts_with_the_command(api: Any, a_run: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answer = a_run
    before = time.monotonic()
    main(["train", "x"])
    monkeypatch.setattr(sys, "argv", ["saccade", "train", "x"])
    main()
    first, second = (call[2]["started"] for call in api.calls)
    assert before <= first <= time.monotonic()
    assert second <= time.monotonic() - time.process_time() + 1, "the time that the interpreter's start took counts too"


PROGRAM = """
import sys, types
import saccade
api = types.ModuleType("saccade.api")
class Predictions(list):
    failed = []
    def to_dict(self):
        return {"results": [{"source": f"{i}.png", "task": "classify", "label": "cat", "score": 0.5} for i in range(200_000)],
                "failed": [], "images_per_second": 1.0}
api.predict = lambda *args, **options: Predictions([1])
sys.modules["saccade.api"] = api
from saccade.cli.main import main
sys.exit(main())
"""


@pytest.mark.processes
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_closed_pipe_is_silent(option: list[str], unbuffered: str) -> None:
    command = [sys.executable, "-c", PROGRAM, "predict", "run", "x", *option]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5)
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(30) == 141
    assert errors == b""


@pytest.mark.processes
def test_a_reader_that_has_gone_before_the_first_line_is_silent_too() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", PROGRAM.replace("200_000", "1"), "predict", "run", "x"]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # the line waits in a buffer, which Python flushes once more at its end
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.processes
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", PROGRAM, "predict", "run", "x"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2
    assert done.stderr.decode() == "error: standard output: No space left on device\n"


@pytest.mark.processes
def test_names_that_the_output_cannot_encode() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    program = PROGRAM.replace("{i}.png", "é\\udcff😀.png").replace("200_000", "1")
    for option in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", program, "predict", "run", "x", *option], env=environment, capture_output=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, b"")
        if option:
            assert json.loads(done.stdout)["results"][0]["source"] == r"é\udcff😀.png", "strict JSON: such a byte is spelled out"


HEAVY = ["torch", "numpy", "rich", "pydantic", "PIL", "scipy", "sklearn", "matplotlib", "timm", "captum", "difflib", "annotated_types"]


@pytest.mark.processes
@pytest.mark.parametrize("argv", [[], ["--help"], ["--version"]])
def test_help_loads_nothing_heavy(argv: list[str]) -> None:
    program = (
        f"import sys\nfrom saccade.cli.main import main\ncode = main({argv!r})\nprint([m for m in {HEAVY!r} if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr


@pytest.mark.processes
def test_the_help_of_a_verb_loads_no_torch() -> None:
    program = "import sys\nfrom saccade.cli.main import VERBS, main\nfor verb in VERBS: main([verb, '--help'])\n"
    program += "print([m for m in ('torch', 'numpy', 'rich', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.processes
def test_both_ways_to_start_it_and_completion() -> None:
    done = subprocess.run([sys.executable, "-m", "saccade", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"saccade {__version__}\n")
    environment = {**os.environ, "_SACCADE_COMPLETE": "bash_complete", "COMP_WORDS": "saccade pre", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "saccade"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "plain,predict"


def test_every_verb_that_computes_has_the_common_options() -> None:
    context = click.Context(group)
    for verb in set(VERBS) - {"data", "models", "adopt", "edit", "set"}:  # those only read and write files
        command = group.get_command(context, verb)
        assert command is not None
        names = {name for parameter in command.params for name in parameter.opts}
        assert {"--json", "--quiet", "--device"} <= names, verb
