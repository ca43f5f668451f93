"""`saccade edit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from saccade.cli import options, output

SHOWN = 12
EDITS = """\b
Edits, each one line in quotes; PATH is a module's name or a pattern:
  widen PATH F              F times the channels: of a layer and all that is tied
                            to it, else of what is inside of the module
  deepen PATH +N            N more residual blocks
  set-classes +a -b c=d     new, gone and renamed classes
  set-input-channels N      1, 3, 4, or bands
  replace TYPE|PATH TYPE    other activations or normalisations: replace ReLU SiLU,
                            replace BatchNorm GroupNorm, replace LayerNorm RMSNorm
  insert-after PATH MODULE  SqueezeExcite, Dropout [P], Dropout2d [P], an activation
  remove PATH               a module that gives what has the shape of what it takes
  add-lora R PATH           two thin layers beside each, which learn in its place
  merge-lora [PATH]         what they have learned becomes part of the layers
  factorize PATH RANK       each layer as two thin ones, by its singular vectors
  freeze|unfreeze PATH      it is learned no longer, and again
  set-drop P [PATH]         probability of dropout and stochastic depth
  set-size HxW              images of another size, positions interpolated
  grow-resolution           a GAN's images twice as large, by a new stage
  early-exit PATH           a head behind it, at which images that are told surely
                            leave the network
  prune PATH F              the share F of the channels goes
  fuse [PATH]               batch normalisations become part of the layers before"""


@click.command("edit", epilog=EDITS)
@click.argument("target", metavar="RUN|MODEL", type=click.Path())
@click.argument("edits", metavar="EDIT...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@click.option("--undo", is_flag=True, help="Take the last edit back.")
@options.out("New model file. Default: NAME-edited.safetensors beside the model.")
@options.seed
@options.output
def command(target: str, edits: tuple[str, ...], as_json: bool, quiet: bool, **request: Any) -> None:
    """Change a network: that of a model file, or of a run that trains now."""
    from saccade import api

    found = api.edit(target, *edits, **request).to_dict()
    if as_json:
        output.say_json(found)
        return
    for row in found["edits"]:
        show(row)
    made = f"made at step {found['step']}" if found["step"] is not None else "nothing was written"
    output.say(f"model  {found['model']}" if found["model"] else made)


def show(row: Mapping[str, Any]) -> None:
    """What one edit changes."""
    output.say(row["text"])
    if "difference" not in row:  # of a run, which has said why
        output.say("  what it changes is not known")
        return
    kept = row["difference"]
    output.pairs(
        [
            ("  promise", row["promise"] if kept is None else f"{row['promise']}: outputs differ by {kept:.1g}"),
            ("  parameters", f"{row['parameters_before']:,} -> {row['parameters_after']:,}"),
            ("  FLOPs", f"{row['flops_before']:,} -> {row['flops_after']:,}"),
        ]
    )
    names = row["modules"]
    if names:
        counted, more = "1 module" if len(names) == 1 else f"{len(names)} modules", ", ..." if len(names) > SHOWN else ""
        output.say(f"  {counted}: {', '.join(names[:SHOWN])}{more}")
    for shape in row["shapes"][:SHOWN]:
        output.say(f"    {shape['name']}  {_size(shape['before'])} -> {_size(shape['after'])}")
    if len(row["shapes"]) > SHOWN:
        output.say(f"    and {len(row['shapes']) - SHOWN} more tensors")


def _size(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "none"
