"""`saccade explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from saccade.cli import options, output
from saccade.cli.predict import check_inputs, report_failed
from saccade.core.errors import UserError


def _box(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(map(float, text.split(","))) if text is not None else None
    except ValueError:
        raise UserError(f"must be four numbers as 10,20,110,70, got {text!r}", where="--box") from None


@click.command("explain", epilog="INPUT is an image, a folder, a pattern, or - for one image on standard input.")
@click.argument("target", metavar="RUN|MODEL", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@options.out("Folder for maps and pictures. Default: the run's explanations/.")
@click.option("--class", "target_class", metavar="NAME", help="Explain this class. Default: the one predicted.")
@click.option(
    "--box", metavar="X1,Y1,X2,Y2", callback=_box, help="Explain the object there (pixels of the image). Default: the surest of its class."
)
@options.device
@options.output
@click.pass_context
def command(context: click.Context, /, as_json: bool, quiet: bool, target: str, inputs: Sequence[str], **request: Any) -> None:
    """Where in each image the model saw its answer (Grad-CAM), and the run's worst mistakes."""
    from saccade import api

    check_inputs(context, inputs)
    with options.progress(quiet) as progress:
        explanations = api.explain(target, list(inputs), **request, progress=progress)
    facts = explanations.to_dict()
    report_failed(facts.get("failed", ()))
    if as_json:
        output.say_json(facts)
    else:
        show(facts)


def show(facts: Mapping[str, Any]) -> None:
    """A line an image with the path of its picture, then the mistakes."""
    for row in facts["images"]:
        output.say(f"{row['source']}: {row['target']}  {row['picture']}")
    if facts["mistakes"]:
        output.say()
        output.say("worst mistakes")
        output.rows_of(facts["mistakes"])
