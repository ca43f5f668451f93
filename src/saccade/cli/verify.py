"""`saccade verify`."""

from __future__ import annotations

from typing import Any

import click

from saccade.cli import options
from saccade.cli.export import finish


@click.command("verify", epilog="Needs CERTIFICATE.json and reference.npz beside the file, as `saccade export` left them.")
@click.argument("file", metavar="EXPORT", type=click.Path())
@click.argument("data", metavar="DATA", type=click.Path())
@options.device
@options.seed
@options.output
@click.pass_context
def command(context: click.Context, /, as_json: bool, quiet: bool, **request: Any) -> None:
    """Repeat an export's proof anywhere, without torch: the same images, the same answers, the same metric."""
    from saccade import api

    with options.progress(quiet) as progress:
        found = api.verify(**request, progress=progress)
    finish(context, found.to_dict(), as_json)
