"""`saccade data`: the verbs of data."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from saccade.cli import options, output
from saccade.cli.main import Suggesting
from saccade.core.errors import UserError

if TYPE_CHECKING:
    from saccade.api import ExportedModel, Model

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 8  # findings of one code that are printed; --json has them all


def _shares(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    try:
        return [float(part) for part in value.split(",")]
    except ValueError:
        raise UserError(f"must be numbers between commas, got {value!r}", where="--shares", fix="for example 0.8,0.1,0.1") from None


@click.group("data", cls=Suggesting, no_args_is_help=False)
def command() -> None:
    """Make, check, convert, share out, measure and show data sets."""


def _understood(function: F) -> F:
    """DATA, and how it is to be understood."""
    function = click.option("--format", metavar="FORMAT", help="The format, where another was found than is meant.")(function)
    function = options.task(None, "The task, where the data fit several.")(function)
    return click.argument("data", type=click.Path())(function)


@command.command("make")
@click.argument("kind", metavar="shapes")
@options.task("classify", "What the data are for: classify, detect, segment, instances or panoptic.")
@click.option("--n", type=click.IntRange(1), default=600, show_default=True, help="How many images.")
@options.size("64x64", "Height and width of the images.")
@click.option("--format", metavar="FORMAT", help="How to write them; by default class folders, COCO or mask folders.")
@options.out("The folder to write; it must not exist or be empty.", required=True)
@options.seed
@options.output
def make(as_json: bool, quiet: bool, kind: str, **request: Any) -> None:
    """Draw images of known truth, the same for the same seed."""
    from saccade import data

    with options.progress(quiet) as progress:
        facts = data.make(kind, **request, progress=progress)
    if as_json:
        output.say_json(facts)
        return
    output.pairs([(name, value) for name, value in facts.items() if not isinstance(value, list | dict)])
    verb = "train" if facts["task"] in ("classify", "detect", "instances", "segment", "panoptic") else "data stats"
    output.pairs([("next", f"saccade {verb} {shlex.quote(request['out'])}")])


@command.command("convert")
@_understood
@click.argument("out", type=click.Path())
@click.option("--to", metavar="FORMAT", required=True, help="The format to write.")
@options.output
def convert(as_json: bool, quiet: bool, data: str, out: str, **request: Any) -> None:
    """Write a set in another format into the new folder OUT, and say what that format cannot hold."""
    from saccade import data as verbs

    with options.progress(quiet) as progress:
        facts = verbs.convert(data, out, **request, progress=progress)
    if as_json:
        output.say_json(facts)
        return
    output.pairs([("path", facts["path"]), ("format", facts["format"]), ("task", facts["task"]), *facts["written"].items()])
    output.rows_of([{"lost": row["what"], "count": row["count"]} for row in facts["lost"]])


@command.command("split")
@_understood
@click.option("--shares", metavar="A,B[,C]", default="0.8,0.1,0.1", show_default=True, callback=_shares, help="Of train, val and test.")
@click.option("--by", metavar="WAY", default="class", show_default=True, help="class, chance, group, time or likeness.")
@click.option("--pattern", metavar="REGEX", help="Finds in each path what group or time the image is of.")
@options.out("The list to write, NAME.splits.json: it stands for the set with these splits.", required=True)
@options.seed
@options.output
def split(as_json: bool, quiet: bool, data: str, **request: Any) -> None:
    """Share out a set's images anew, as a list of files; nothing is moved."""
    from saccade import data as verbs

    with options.progress(quiet) as progress:
        facts = verbs.split(data, **request, progress=progress)
    if as_json:
        output.say_json(facts)
        return
    output.pairs([("path", facts["path"]), *facts["splits"].items(), ("next", f"saccade train {shlex.quote(facts['path'])}")])


@command.command("stats")
@_understood
@options.out("An HTML file for the plots.")
@options.output
def stats(as_json: bool, quiet: bool, data: str, **request: Any) -> None:
    """Measure a set: sizes, colours, classes, objects."""
    from saccade import data as verbs

    with options.progress(quiet) as progress:
        facts = verbs.stats(data, **request, progress=progress)
    if as_json:
        output.say_json(facts)
        return
    plain = [(name, value) for name, value in facts.items() if not isinstance(value, list | dict)]
    sizes = facts["sizes"]
    middle = [(name, " to ".join(f"{v:g}" for v in sizes[name]["quantiles"][::4])) for name in ("height", "width", "aspect")]
    colour = [(f"colour {name}", " ".join(f"{v:.3f}" for v in facts["colour"][name])) for name in ("mean", "deviation")]
    output.pairs([*plain, *facts["splits"].items(), *middle, *colour])
    kept = [name for name in ("class", "images", "objects") if name != "objects" or facts["objects"]["count"]]
    output.rows_of([{name: row[name] for name in kept} for row in facts["classes"]])


@command.command("view")
@_understood
@options.out("The folder to write; it must not exist or be empty.", required=True)
@options.output
def view(as_json: bool, quiet: bool, data: str, **request: Any) -> None:
    """Write a contact sheet: every image with its labels, boxes and masks."""
    from saccade import data as verbs

    with options.progress(quiet) as progress:
        facts = verbs.view(data, **request, progress=progress)
    if as_json:
        output.say_json(facts)
        return
    output.pairs(list(facts.items()))


@command.command("preview")
@_understood
@options.out("The folder to write; it must not exist or be empty.", required=True)
@click.option("--images", type=click.IntRange(1), default=6, show_default=True, help="How many images.")
@options.overrides
@options.output
def preview(as_json: bool, quiet: bool, data: str, **request: Any) -> None:
    """Write a contact sheet of what training makes of images: each random change by itself, then all."""
    import saccade

    with options.progress(quiet) as progress:
        facts = saccade.preview(data, **request, progress=progress)
    if as_json:
        output.say_json(facts)
        return
    output.pairs(list(facts.items()))


@command.command("check", epilog="Exit code 2 where there are errors, or with --fix where errors are left.")
@_understood
@options.out("An HTML file for a page of the findings.")
@click.option("--fix", metavar="DST", type=click.Path(), help="Write a repaired copy into this new folder.")
@click.option("--run", metavar="RUN|MODEL", type=click.Path(), help="A classifier: labels that it confidently contradicts are found too.")
@options.output
@click.pass_context
def check(context: click.Context, /, as_json: bool, quiet: bool, data: str, run: str | None, **request: Any) -> None:
    """Look for all that is wrong with a set: labels, boxes, outlines, masks, images, duplicates, leaks."""
    from saccade import data as verbs

    with options.progress(quiet) as progress:
        facts = verbs.check(data, **request, run=_model(run), progress=progress)
    if as_json:
        output.say_json(facts)
    else:
        _show(facts)
    if facts["fixed"]["errors_left"] if "fixed" in facts else facts["errors"]:
        context.exit(2)


def _model(path: str | None) -> Model | ExportedModel | None:
    if path is None:
        return None
    from saccade import api

    return api.load(path)


def _show(facts: Mapping[str, Any]) -> None:
    """The first findings of each code, then how many there are of each."""
    named: Counter[str] = Counter()
    for found in facts["findings"]:
        named[found["code"]] += 1
        if named[found["code"]] <= SHOWN:
            line = f":{found['line']}" if found["line"] else f", object {found['object'] + 1}" if "object" in found else ""
            output.say(f"{found['severity']:<7}  {found['path']}{line}: {found['message']}")
    by_code = {found["code"]: found for found in facts["findings"]}
    repaired = facts["fixed"]["repaired"] if "fixed" in facts else {}
    head = ["code", "severity", "count", *(["repaired"] if repaired else [])]
    rows = [[code, by_code[code]["severity"], count] for code, count in facts["counts"].items()]
    if repaired:
        rows = [[*row, repaired.get(row[0], 0)] for row in rows]
    if rows:
        output.say()
        output.table(head, rows)
        output.say()
    output.pairs([(name, facts[name]) for name in ("format", "task", "images", "errors", "warnings", "page") if name in facts])
    if "fixed" in facts:
        output.pairs([("fixed", facts["fixed"]["path"]), ("errors left", facts["fixed"]["errors_left"])])
