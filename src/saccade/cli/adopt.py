"""`saccade adopt`."""

from __future__ import annotations

from typing import Any

import click

from saccade.cli import options, output
from saccade.core.errors import UserError


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(one) for one in value.split(","))
    except ValueError:
        raise UserError(f"must be a number a channel with commas between, got {value!r}", where=f"--{parameter.name}") from None


@click.command("adopt", epilog="Pickled files are opened in a process of their own, which can reach nothing.")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--model", required=True, metavar="NAME", help="The network that the weights are for; see `saccade models`.")
@click.option("--out", required=True, type=click.Path(), metavar="FILE", help="The model file to write: NAME.safetensors.")
@click.option("--classes", metavar="A,B,C|FILE", help="Names in the order of the weights, or a file of a name a line; numbers otherwise.")
@options.size(None, "Of the model's input; without it, what the network was made for.")
@click.option("--channels", type=click.IntRange(1, 3), metavar="1|3", help="Of the images: grey or colour.")
@click.option("--mean", callback=_numbers, metavar="R,G,B", help="Of the pixels, in 0..1, or in 0..255 where one is above 1.")
@click.option("--std", callback=_numbers, metavar="R,G,B", help="On the same scale.")
@click.option("--bgr", is_flag=True, help="The weights expect blue first, as those from Caffe; --mean and --std then too.")
@click.option("--license", default="unknown", show_default=True, metavar="NAME", help="Of the weights, as their makers state it.")
@click.option("--source", default="", metavar="TEXT", help="Where the file is from: kept beside its licence and sum.")
@click.option("--data", default="", metavar="TEXT", help="The data set that the weights learned from: kept too.")
@options.task(None, "Of the weights, where networks of this name are there for several.")
@options.output
def command(as_json: bool, quiet: bool, **request: Any) -> None:
    """Make a model file of weights that others have trained: then every verb works on it."""
    from saccade.api import adopting

    found = adopting.adopt(**request)
    if as_json:
        output.say_json(found.to_dict())
        return
    facts = found.to_dict()
    facts["classes"] = ", ".join(found.classes[:8]) + (f" and {len(found.classes) - 8} more" if len(found.classes) > 8 else "")
    facts["unexpected"] = ", ".join(found.unexpected[:5]) or "none"
    output.pairs([(name, value if value != "" else "-") for name, value in facts.items()])
