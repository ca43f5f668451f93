"""The command `saccade`: a table of verbs that load when used, and the one place where an error becomes a line and a code.

Exit codes: 0 done; 1 a defect of ours; 2 the request or its data are at fault; 130 and 143 interrupted by SIGINT and
SIGTERM; 141 the reader of standard output has gone (as for any command in a pipe).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from saccade import __version__

if TYPE_CHECKING:
    from types import FrameType

    from saccade.core.errors import SaccadeError, UserError

VERBS = {
    "quickstart": "the whole way on images that ship with the package",
    "train": "train a model on a folder of images",
    "eval": "measure a model: overall, per class, with intervals",
    "predict": "what a model says of images",
    "embed": "a vector of features for each image",
    "generate": "images that a trained GAN or VAE makes",
    "explain": "where a model looks, and its worst mistakes",
    "edit": "change a network: wider, deeper, other classes, other activations",
    "set": "change how a run trains, while it does",
    "export": "a file for another runtime, with the proof that it answers the same",
    "verify": "repeat that proof anywhere, without torch",
    "bench": "how fast, how large and how good models are on this machine",
    "models": "what can be built by name, with size and licence",
    "adopt": "a model file from weights that others have trained",
    "data": "make data sets",
}

BROKEN_PIPE = 128 + 13  # what a shell reports for a command that SIGPIPE ended
_USERS_FAULT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


class OutputClosedError(Exception):
    """Whoever read standard output has gone, as in `saccade predict ... | head`."""


class Suggesting(click.Group):
    """A group that names the nearest verbs when it does not know one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; raises UserError for an unknown name."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            from saccade.core.errors import unknown

            raise unknown("verb", args[0], names, where=ctx.command_path)
        return super().resolve_command(ctx, args)


class Verbs(Suggesting):
    """The verbs are modules `saccade.cli.<verb>` with a `command` each, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb; None when there is none of this name."""
        if cmd_name not in VERBS:
            return None
        import importlib

        command: click.Command = importlib.import_module(f"saccade.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of verbs in `--help`, without importing one."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"max_content_width": 100},
    subcommand_metavar="VERB ...",
    epilog="First steps: `saccade quickstart`, then `saccade train photos/`, where photos/ has a folder per class.",
)
@click.version_option(__version__, message="saccade %(version)s")
def group() -> None:
    """From a folder of images to a trained, measured, explained model."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and raises nothing. `argv` defaults to the process's own arguments."""
    # The clock of `--minutes` starts with the command: the processor time so far is what the interpreter's start took.
    started = time.monotonic() - (time.process_time() if argv is None else 0.0)
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    received: list[int] = []
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    try:
        with _quiet_libraries(), _termination(received):
            return _run(args, started)
    except OutputClosedError:
        _discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _report({"message": "interrupted", "where": "", "fix": ""}, "interrupted", as_json, 128 + signal.SIGINT)
    except Exception as error:
        return _failed(_hidden(error, received), as_json)


def _hidden(error: Exception, received: Sequence[int]) -> Exception:
    """The interruption, where a library has made another error of it."""
    from saccade.core.errors import Interrupted, SaccadeError

    return Interrupted(received[0], "terminated") if received and not isinstance(error, SaccadeError) else error


def _run(args: list[str], started: float) -> int:
    if "_SACCADE_COMPLETE" in os.environ:
        group.main(prog_name="saccade")  # the shell asks for completions; this exits
    try:
        # Not group.main: it turns interrupts and broken pipes into exit codes of its own.
        with group.make_context("saccade", args, obj=started) as context:
            group.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    finally:
        flush()
    return 0


def flush() -> None:
    """Write out standard output; raises OutputClosedError when nobody reads it any more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Python warnings are for developers (`python -W default -m saccade` shows them); no library phones home."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


@contextmanager
def _termination(received: list[int]) -> Iterator[None]:
    """SIGTERM raises Interrupted, SIGINT KeyboardInterrupt, so that temporary files are removed and the code is 143 or 130; `received`
    keeps their numbers, since compiled code may turn the exception of a handler into another. Training has handlers of its own.
    Where the exception was raised in code that can pass none on (a finalizer, a callback of C), the signal is sent once more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker ends as if there were no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        from saccade.core.errors import Interrupted

        raise Interrupted(number, "terminated")

    swallowed: list[threading.Timer] = []

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if not received or lost.exc_type.__name__ not in ("KeyboardInterrupt", "Interrupted"):
            hook_before(lost)
            return
        swallowed.append(threading.Timer(0.02, os.kill, (owner, received[-1])))
        swallowed[-1].daemon = True
        swallowed[-1].start()

    hook_before, sys.unraisablehook = sys.unraisablehook, unraisable
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as of jobs that a shell starts with &
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, *(() if ignored else (signal.SIGINT,)))}
    try:
        yield
    finally:
        sys.unraisablehook = hook_before
        for timer in swallowed:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _failed(error: Exception, as_json: bool) -> int:
    from saccade.core.errors import Interrupted, OtherRankError, UserError

    if isinstance(error, OtherRankError):
        return error.exit_code
    known = _known(error)
    if known is None:
        import traceback

        traceback.print_exception(error)
        text = f"{type(error).__name__}: {error}"
        known = UserError(f"a defect of saccade, not of your data: {text}", fix="please report it with the lines above")
        return _report(known.to_dict(), f"error: {known}", as_json, 1)
    if isinstance(known, UserError):
        return _report(known.to_dict(), f"error: {known}", as_json, known.exit_code)
    kind = "interrupted" if isinstance(known, Interrupted) else "error"
    return _report({"message": str(known), "where": "", "fix": ""}, f"{kind}: {known}", as_json, known.exit_code)


def _known(error: Exception) -> SaccadeError | None:
    """The error as one of ours; None for a defect."""
    from saccade.core.errors import SaccadeError, UserError

    if isinstance(error, SaccadeError):
        return error
    if isinstance(error, click.ClickException):
        return _usage_error(error)
    if isinstance(error, OSError) and error.errno in _USERS_FAULT:
        return UserError(error.strerror or str(error), where=str(error.filename or "standard output"))
    return None


def _usage_error(error: click.ClickException) -> UserError:
    from saccade.core.errors import UserError

    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context is not None else "saccade"
    if isinstance(error, click.NoSuchOption) and context is not None:
        return _unknown_option(error.option_name, context)
    message = error.format_message().rstrip(".")
    return UserError(message[:1].lower() + message[1:], where=where, fix=f"see {where} --help")


def _unknown_option(name: str, context: click.Context) -> UserError:
    from saccade.core.errors import UserError, nearest

    # Compared without the dashes, which would make all of them alike.
    options = [option[2:] for parameter in context.command.get_params(context) for option in parameter.opts if option.startswith("--")]
    close = nearest(name.lstrip("-"), options, 2)
    fix = f"did you mean {' or '.join(f'--{option}' for option in close)}?" if close else f"see {context.command_path} --help"
    return UserError(f"unknown option {name}", where=context.command_path, fix=fix)


def _report(error: dict[str, Any], line: str, as_json: bool, code: int) -> int:
    """Print the line to standard error, the object to standard output; gives back `code`."""
    from saccade.core.errors import one_line

    try:
        print(one_line(line), file=sys.stderr)
        if as_json:
            import json

            print(json.dumps({"error": error}))
            flush()
    except (OSError, ValueError, OutputClosedError):  # nobody listens: the exit code says it
        _discard_output()
    return code


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not complain (Python's documentation, SIGPIPE)."""
    try:
        descriptor: Any = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    except (OSError, ValueError, AttributeError):  # not a real file: a test's or a notebook's
        pass
