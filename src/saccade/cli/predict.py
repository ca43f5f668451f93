"""`saccade predict`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saccade.cli import options, output
from saccade.core.errors import one_line

if TYPE_CHECKING:
    from saccade.api import Predictions


INPUTS = "INPUT is an image, a video, a folder of images, a pattern such as 'photos/*.jpg', or - for one image on standard input."


@click.command("predict", epilog=INPUTS)
@click.argument("target", metavar="RUN|MODEL|EXPORT", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@options.out("Folder for the predictions.")
@click.option(
    "--format",
    type=click.Choice(["json", "jsonl", "csv", "png", "geojson", "coco", "yolo", "voc", "masks"]),
    help="Of the file in --out, or of standard output; png: each image with its answer drawn over it; geojson: outlines of regions in the "
    "coordinates of each GeoTIFF; coco, yolo, voc, masks: the images with what was found as a labelled set, all of these in --out. "
    "Default: json in --out; of videos jsonl, beside the video with the answers drawn over it.",
)
@click.option("--strict", is_flag=True, help="One image that cannot be read fails the whole request.")
@options.max_pixels
@options.looking
@options.compute
@options.output
@click.pass_context
def command(context: click.Context, /, as_json: bool, quiet: bool, target: str, inputs: Sequence[str], **request: Any) -> None:
    """What a model says of images: order kept, unreadable ones reported while the rest goes on."""
    from saccade import api
    from saccade.core.video import is_video

    form = request.pop("format")
    check_inputs(context, inputs)
    if not as_json and (form == "jsonl" or (form is None and any(map(is_video, inputs)))):
        return _print_each(target, list(inputs), request, quiet, plain=form is None)
    with options.progress(quiet) as progress:
        predictions = api.predict(target, list(inputs), **request, format=form, progress=progress)
    report_failed(predictions.failed)
    if as_json:
        output.say_json(predictions.to_dict())
    elif form and request["out"] is None:
        _print_as(predictions, form)
    else:
        show(predictions, request["out"])


def check_inputs(context: click.Context, inputs: Sequence[str]) -> None:
    """Standard input can be read once."""
    if list(inputs).count("-") > 1:
        output.usage(context, "Standard input (-) can be given once only")


def report_failed(rows: Sequence[Mapping[str, str]]) -> None:
    """A line on standard error for each input that could not be read; the rest went on."""
    for row in rows:
        click.echo(one_line(f"failed: {row['source']}: {row['reason']}"), err=True)


def _print_each(target: str, inputs: list[str], request: dict[str, Any], quiet: bool, *, plain: bool) -> None:
    """A line a result as it comes, of JSON or `plain`, on standard output or in --out; nothing is held."""
    from saccade import api

    written = 0
    with options.progress(quiet) as progress:
        for answer in api.predict_each(target, inputs, **request, progress=progress):
            if isinstance(answer, api.Failed):
                report_failed([answer.to_dict()])
                continue
            written += 1
            if request["out"] is None:
                (_say if plain else output.line)(answer.to_dict())
    if request["out"] is not None:
        output.say(f"{written:,} results written to {request['out']}")


def _say(row: Mapping[str, Any]) -> None:
    output.say(line(row))


def _print_as(predictions: Predictions, form: str) -> None:
    """Standard output gets what a file in `form` would hold."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"predictions.{form}"
        predictions.save(path, form)
        output.raw(path.read_text(encoding="utf-8"))


def show(predictions: Predictions, out: str | None) -> None:
    """One line an image."""
    for row in predictions.to_dict()["results"]:
        _say(row)
    if out is not None:
        output.say(f"written to {out}")


def line(row: Mapping[str, Any]) -> str:
    """`source: label score (notes)`: the result's plain values in their order; of detections how many there are of each class."""
    if "boxes" in row:
        counts = Counter(row["labels"])
        found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
        return f"{row['source']}: {found}" + (f"  ({'; '.join(row['notes'])})" if row.get("notes") else "")
    if "shares" in row:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["shares"].items())
        return f"{row['source']}: {shares}" + (f"  ({'; '.join(row['notes'])})" if row.get("notes") else "")
    beside = {"source", "task", "frame", "time"}
    values = [value for key, value in row.items() if key not in beside and isinstance(value, str | int | float)]
    text = "  ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values)
    notes = "; ".join(row.get("notes", ()))
    return f"{row['source']}: {text}" + (f"  ({notes})" if notes else "")
