"""`saccade export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from saccade.cli import options, output


@click.command("export", epilog="A RUN knows its data, a MODEL needs --data. Exit code 2 and no file where the proof fails.")
@click.argument("target", metavar="RUN|MODEL", type=click.Path())
@click.option("--to", metavar="onnx|openvino", default="onnx", show_default=True, help="The runtime.")
@click.option("--data", type=click.Path(), help="Images to compare on; validation is taken. Default: the run's own.")
@options.out("Folder for file and certificate. Default: exports/<target>-<precision> beside the model.")
@click.option("--precision", metavar="fp32|fp16", default="fp32", show_default=True, help="Of the weights.")
@click.option("--tolerance", metavar="P", type=float, default=0.5, show_default=True, help="Points of the metric that may be lost.")
@options.device
@options.seed
@options.output
@click.pass_context
def command(context: click.Context, /, as_json: bool, quiet: bool, **request: Any) -> None:
    """Write a model for another runtime, and prove that it answers the same; no proof, no file."""
    from saccade import api

    with options.progress(quiet) as progress:
        found = api.export(**request, progress=progress)
    finish(context, found.to_dict(), as_json)


def finish(context: click.Context, facts: Mapping[str, Any], as_json: bool) -> None:
    """Print what was found; exit code 2 where the proof fails."""
    if as_json:
        output.say_json(facts)
    else:
        show(facts)
    if facts["verdict"] != "pass":
        context.exit(2)


def show(facts: Mapping[str, Any]) -> None:
    """Checks, figures side by side, and where the file is."""
    for check in facts["checks"]:
        output.say(f"{'pass' if check['passed'] else 'FAIL'}  {check['name']:<8} {check['message']}")
    output.say()
    metrics, differences = facts["metrics"], facts["differences"]
    rows = [[name, value, metrics["exported"].get(name), *_bounds(differences.get(name))] for name, value in metrics["reference"].items()]
    output.table(["metric", "original", "exported", "difference", "95 % from", "to"], rows)
    output.say()
    agreement = "-" if facts["agreement"] is None else f"{100 * facts['agreement']:.2f} %"
    output.say(f"agreement  {agreement} of {facts['images']:,} answers are the same")
    latency, source = facts.get("latency_ms"), facts.get("source")
    if latency:
        output.say(f"latency    {latency['reference']:.2f} ms -> {latency['exported']:.2f} ms for one image (median), {facts['runtime']}")
    if source:
        output.say(f"size       {source['bytes'] / 1e6:.2f} MB -> {facts['bytes'] / 1e6:.2f} MB")
    output.say(f"verdict    {facts['verdict']}")
    if facts["file"] is None:
        output.say("nothing was written: the exported file does not answer as the original does")
    else:
        output.say(f"file       {facts['file']}")
        if facts["verdict"] == "pass":
            output.say(f"certified  {facts['certificate']}")


def _bounds(row: Mapping[str, Any] | None) -> list[Any]:
    return [None, None, None] if row is None else [row["value"], row["low"], row["high"]]
