"""`saccade embed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from saccade.cli import options, output
from saccade.cli.predict import check_inputs, report_failed


@click.command("embed", epilog="NAME is a network that `saccade models --task classify` lists; INPUT as for predict.")
@click.argument("target", metavar="RUN|MODEL|NAME", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@options.out("A .npz file for the vectors and the names of their images.")
@click.option(
    "--layer", metavar="NAME", help="Of a module of the network, as layer3: averaged over places. Default: what its last layer gets."
)
@click.option("--pretrained", is_flag=True, help="A network by name gets its published weights (a download), not random ones.")
@click.option("--weights", type=click.Path(), metavar="FILE", help="A network by name gets the weights of this file.")
@options.licenses
@options.size(None, "Input of a network by name. Default: that of its published weights, else 224.")
@click.option("--strict", is_flag=True, help="One image that cannot be read fails the whole request.")
@options.max_pixels
@options.seed
@options.compute
@options.output
@click.pass_context
def command(context: click.Context, /, as_json: bool, quiet: bool, target: str, inputs: Sequence[str], **request: Any) -> None:
    """A vector of features for each image, to search, cluster and classify by."""
    from saccade import api

    check_inputs(context, inputs)
    if request["out"] is None and not as_json:
        output.usage(context, "The vectors need a place: --out FILE.npz, or --json")
    with options.progress(quiet) as progress:
        found = api.embed(target, list(inputs), **request, progress=progress)
    report_failed(found.failed)
    if as_json:
        output.say_json(found.to_dict())
        return
    output.say(f"{len(found):,} images as vectors of {found.shape[1]:,} numbers, {output.number(found.images_per_second)} images/s")
    output.say(f"written to {found.file}")
