"""`saccade bench`."""

from __future__ import annotations

from typing import Any

import click

from saccade.cli import options, output


@click.command("bench", epilog="A RUN stands for its best model and all of its exports.")
@click.argument("targets", nargs=-1, required=True, metavar="RUN|MODEL|EXPORT...", type=click.Path())
@click.option("--data", type=click.Path(), help="Labelled images for the metric. Default: what a run or an export knows.")
@options.size(None, "Size of the images. Default: each model's own.")
@click.option(
    "--batch", metavar="N", type=click.IntRange(1, 4096), help="Images a call for the throughput. Default: what suits the runtime."
)
@options.out("Folder for bench.json and bench.png (metric against latency).")
@options.compute
@options.output
def command(as_json: bool, quiet: bool, **request: Any) -> None:
    """Latency, throughput, memory, start, size and metric on this machine, each model in a process of its own, in turns."""
    from saccade import api

    with options.progress(quiet) as progress:
        found = api.bench(**request, progress=progress)
    facts = found.to_dict()
    if as_json:
        output.say_json(facts)
        return
    from saccade.api.benching import COLUMNS

    output.table(COLUMNS, [[output.number(row[name]) for name in COLUMNS] for row in facts["rows"]])
    if request["out"] is not None:
        output.say(f"written to {request['out']}")
