"""`saccade train`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from saccade.cli import options, output
from saccade.core import launch

if TYPE_CHECKING:
    from saccade.api import Run


@click.command(
    "train", epilog="DATA holds a folder per class, or train/, val/, test/ with a folder per class in each; for --task generate any images."
)
@click.argument("data", required=False, type=click.Path())
@options.task(None, "Default: what the data tell.")
@click.option(
    "--model",
    metavar="MODEL",
    help="One of ours (small_resnet_32px ...), a classifier of timm; to make images r3gan, dcgan, vae, vqvae ... Default: by the data.",
)
@click.option("--epochs", metavar="N", type=float, help="Passes over the training images.")
@click.option("--minutes", metavar="X", type=float, help="Wall time from the start of the command.")
@options.size(None, "Size of the model's input.")
@options.batch
@options.out("The run's folder. Default: runs/<data>-<n>.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; DATA may be left out.")
@click.option("--config", type=click.Path(), metavar="FILE", help="A JSON configuration; a run's run.json is one.")
@options.overrides
@click.option("--weights", type=click.Path(), metavar="FILE", help="Start from the weights of a model file.")
@click.option("--pretrained", is_flag=True, help="Start from published weights; the only option that downloads.")
@options.licenses
@click.option("--workers", metavar="N", type=click.IntRange(0), help="Threads that prepare batches; changes no result.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@click.option(
    "--on-nan",
    type=click.Choice(["stop", "skip", "back"]),
    help="What a loss that is no number, or a GAN that collapses, does.  [default: stop; generate: back]",
)
@click.option("--compile", is_flag=True, help="Train by torch.compile: slow to start, often faster on a GPU.")
@click.option("--shard", is_flag=True, help="Under torchrun: spread weights and moments over the processes (FSDP2).")
@click.option("--other-torch", is_flag=True, help="Resume with another version of torch than the run's; last bits may differ.")
@click.option(
    "--edit", "edits", metavar='"WHEN: EDIT"', multiple=True, help='A change of the network on the way: "at step 2000: deepen layer2 +1".'
)
@click.option("--no-images", "images", is_flag=True, flag_value=False, default=True, help="No pictures in the report.")
@options.compute
@options.seed_if_given
@options.output
@click.pass_obj
def command(started: float, /, as_json: bool, quiet: bool, **request: Any) -> None:
    """Train a model on a folder of images; the best and the last are kept."""
    from saccade import api

    with options.progress(quiet) as progress:
        run = api.train(**request, progress=progress, started=started)
    if launch.rank():  # the first of several processes speaks for all
        return
    if as_json:
        output.say_json(run.to_dict())
    else:
        show(run)


def show(run: Run) -> None:
    """The recipe with its reasons, the outcome, where things are, and what to do next."""
    facts = run.to_dict()
    reasons(facts.get("reasons", ()))
    output.metrics(facts["metrics"])
    output.say()
    rate = output.number(facts["images_per_second"])
    output.say(f"{output.number(facts['steps'])} steps in {output.number(facts['seconds'])} s, {rate} images/s")
    output.say()
    output.pairs([("run", facts["run"]), ("model", facts["model"]), ("report", run.report)])
    output.say()
    folder = shlex.quote(str(facts["run"]))
    output.pairs([("next", f"saccade eval {folder}"), ("", f"saccade predict {folder} IMAGE...")])


def reasons(lines: Any) -> None:
    """The recipe, one line a choice."""
    if lines:
        output.say("recipe")
        for line in lines:
            output.say(f"  {line}")
        output.say()
