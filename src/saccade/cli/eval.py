"""`saccade eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from saccade.cli import options, output

if TYPE_CHECKING:
    from saccade.api import Evaluation
    from saccade.core.progress import Progress


@click.command("eval", epilog="With --predictions the only argument is DATA.")
@click.argument("target", required=False, metavar="RUN|MODEL|EXPORT", type=click.Path())
@click.argument("data", required=False, type=click.Path())
@click.option("--split", metavar="SPLIT", help="Default: test where there is one, else validation.")
@click.option("--predictions", type=click.Path(), metavar="FILE", help="Score anybody's predictions instead of a model's.")
@click.option(
    "--features",
    metavar="FILE|MODEL",
    help="What a model that makes images is measured on: inception (as published figures are), a classifier's file, or a model of timm.",
)
@click.option("--lpips", type=click.Choice(["alex", "vgg"]), help="Models that reconstruct images: compare those by LPIPS too.")
@options.looking
@options.max_pixels
@options.compute
@options.seed
@options.output
@click.pass_context
def command(context: click.Context, /, as_json: bool, quiet: bool, **request: Any) -> None:
    """The task's standard metrics with 95 % intervals, overall and per class."""
    given = [value for value in (request.pop("target"), request.pop("data")) if value is not None]
    file = request.pop("predictions")
    if not given:
        output.usage(context, "Missing argument 'DATA'" if file else "Missing argument 'RUN|MODEL|EXPORT'")
    if file and len(given) > 1:
        output.usage(context, "With --predictions give DATA only, no RUN or MODEL")
    with options.progress(quiet) as progress:
        evaluation = _of_file(file, given[0], request, progress) if file else _of_model(given, request, progress)
    facts = evaluation.to_dict()
    if as_json:
        output.say_json(facts)
    else:
        show(facts)


def _of_model(given: list[str], request: dict[str, Any], progress: Progress) -> Evaluation:
    from saccade import api

    return api.eval(*given, **request, progress=progress)


def _of_file(file: str, data: str, request: dict[str, Any], progress: Progress) -> Evaluation:
    from saccade import api

    return api.eval_predictions(file, data, split=request["split"], seed=request["seed"], progress=progress)


def show(facts: dict[str, Any]) -> None:
    """The figures with their intervals, then the classes, then the exits of a network that images leave early."""
    output.metrics(facts["metrics"], facts["intervals"])
    if facts["per_class"]:
        output.say()
        output.rows_of(facts["per_class"])
    if facts.get("exits"):
        output.say()
        output.rows_of(facts["exits"])
