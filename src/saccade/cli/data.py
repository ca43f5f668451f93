"""`saccade data`: the verbs of data."""

from __future__ import annotations

import shlex
from typing import Any

import click

from saccade.cli import options, output
from saccade.cli.main import Suggesting


@click.group("data", cls=Suggesting, no_args_is_help=False)
def command() -> None:
    """Make data sets."""


@command.command("make")
@click.argument("kind", metavar="shapes")
@options.task("classify", "What the data are for.")
@click.option("--n", type=click.IntRange(1), default=600, show_default=True, help="How many images.")
@options.size("64x64", "Height and width of the images.")
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
    output.pairs([("next", f"saccade train {shlex.quote(request['out'])}")])
