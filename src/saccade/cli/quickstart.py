"""`saccade quickstart`."""

from __future__ import annotations

from typing import Any

import click

from saccade.cli import options, output
from saccade.cli.train import show


@click.command("quickstart")
@options.task("classify", "What to show.")
@options.out("Folder for the images and the run. Default: quickstart, or quickstart-2 ...")
@options.compute
@options.seed
@options.output
@click.pass_obj
def command(started: float, /, as_json: bool, quiet: bool, **request: Any) -> None:
    """Data that ships with the package -> train -> evaluate -> predict -> explain -> export -> report, in about a minute."""
    from saccade import api

    with options.progress(quiet) as progress:
        run = api.quickstart(**request, progress=progress, started=started)
    if as_json:
        output.say_json(run.to_dict())
        return
    for line in run.summary:
        output.say(line)
    if not run.summary:
        show(run)
