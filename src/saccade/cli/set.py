"""`saccade set`."""

from __future__ import annotations

import click

from saccade.cli import options, output
from saccade.core.errors import UserError

SETTINGS = """\b
KEY=VALUE, one or several:
  lr=1e-4 (the rate now, or, in the warm-up, what it rises to) epochs=30 batch=128 weight_decay=0.1 augment.mixup=0.2 ...
  state=paused|running|stopped
  snapshot=now              a checkpoint, as soon as the step in progress is done"""


@click.command("set", epilog=SETTINGS)
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("settings", metavar="KEY=VALUE...", nargs=-1)
@click.option("--undo", is_flag=True, help="Take back what was set last.")
@options.output
def command(run: str, settings: tuple[str, ...], undo: bool, as_json: bool, quiet: bool) -> None:
    """Change how a run trains, while it does; an interrupted one takes it up when it is resumed."""
    from saccade import api

    state, snapshot, given = None, False, []
    for text in settings:
        key, _, value = text.partition("=")
        if key == "state":
            state = value
        elif key == "snapshot":
            if value != "now":
                raise UserError(f"must be snapshot=now, got {text!r}", where="set")
            snapshot = True
        else:
            given.append(text)
    found = api.set(run, options.parsed(given, "set"), state=state, snapshot=snapshot, undo=undo).to_dict()
    if as_json:
        output.say_json(found)
        return
    words = [f"{key}={value}" for key, value in found["settings"].items()] if undo else [*settings]
    words = words or ["what was set last is taken back"]
    when = "when it is resumed" if found["step"] is None else f"from step {found['step']} on"
    output.say(f"{run}  {' '.join(words)}  {when}")
