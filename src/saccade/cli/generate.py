"""`saccade generate`."""

from __future__ import annotations

from typing import Any

import click

from saccade.cli import options, output


@click.command("generate", epilog="Image i depends on the model, the seed and i alone: --n 100 begins with the images of --n 10.")
@click.argument("target", metavar="RUN|MODEL", type=click.Path())
@click.option("--n", metavar="N", type=int, default=16, show_default=True, help="How many images, or draws around --from.")
@click.option("--class", "class_name", metavar="NAME", help="Of this class. Default: as often as they were seen in training.")
@click.option("--truncation", metavar="T", type=float, default=1.0, show_default=True, help="Below 1: likelier and less different images.")
@click.option(
    "--interpolate", metavar="N", type=int, default=0, help="N steps from each image to the next, as a strip and a moving picture."
)
@click.option(
    "--from",
    "from_image",
    metavar="IMAGE",
    type=click.Path(),
    help="Reconstruct this image, then vary it (models with an encoder: vae ...).",
)
@click.option("--nearest", is_flag=True, help="Show the nearest training images beside each (needs the run).")
@options.out("Folder for the images. Default: ./made, or made-2 ... where that is taken.")
@click.option("--seed", metavar="N", type=click.IntRange(0), default=0, show_default=True, help="Which images.")
@options.device
@options.output
def command(as_json: bool, quiet: bool, out: str | None, **request: Any) -> None:
    """Make images with a trained GAN or VAE."""
    from saccade import api
    from saccade.core import folders

    with options.progress(quiet) as progress:
        found = api.generate(**request, out=out or folders.free("made"), progress=progress)
    facts = found.to_dict()
    if as_json:
        output.say_json(facts)
        return
    output.pairs([(name, facts[name]) for name in ("grid", "nearest_sheet", "video", "latents") if facts.get(name)])
    output.say(f"{len(found):,} images of {found.images.shape[2]}x{found.images.shape[1]} pixels, {facts['images'][0]} and on")
    if "bits_per_dim" in facts:
        output.pairs([("bits per value", facts["bits_per_dim"]), ("mean difference", facts["difference"])])
