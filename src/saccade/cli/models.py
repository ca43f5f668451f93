"""`saccade models`."""

from __future__ import annotations

from typing import Any

import click

from saccade.cli import options, output
from saccade.core import licenses

COLUMNS = ("name", "task", "source", "parameters", "flops", "size", "license", "metric", "dataset", "local")


@click.command("models", epilog="Heads and decoders also stand on any network of timm: fasterrcnn/densenet121, unet/resnet34.")
@click.argument("name", required=False, metavar="NAME|PATTERN|FILE")
@options.task(None, "Those of one task.")
@click.option("--max-params", metavar="N", help="Parameters at most: 5000000 or 5M.")
@click.option("--license", metavar="A,B,C", help="Licences of the published weights.")
@click.option("--sort", metavar="KEY", default="name", show_default=True, help="name, parameters or metric.")
@options.output
def command(as_json: bool, quiet: bool, **request: Any) -> None:
    """What can be built by name: source, parameters, licence of the weights, what is published of them."""
    from saccade.api import listing

    found = listing.models(request.pop("name"), **request)
    if as_json:
        output.say_json(found.to_dict())
        return
    output.table(COLUMNS, [[_cell(getattr(entry, name)) for name in COLUMNS] for entry in found])
    for line in (line for entry in found for line in licenses.words(entry.descent)):
        output.say(f"descent  {line}")
    if not quiet:
        click.echo(f"{len(found):,} model{'s' * (len(found) != 1)}", err=True)


def _cell(value: Any) -> Any:
    return "x".join(map(str, value)) if isinstance(value, tuple) else value
