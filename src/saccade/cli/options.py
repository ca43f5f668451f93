"""Options that verbs share, each written once: same name, same default, same words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from saccade.core.errors import UserError

if TYPE_CHECKING:
    from saccade.core.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        raise UserError(f"a device must be auto, cpu, mps, cuda or cuda:N, got {value!r}", where="--device")
    return value


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    from saccade.core.config import parse_size

    return None if value is None else parse_size(value)


def _batch(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value == "auto":
        return value
    if not (value.isdecimal() and int(value) > 0):
        raise UserError(f"a batch must be a number of images from 1 up, or auto, got {value!r}", where="--batch")
    return int(value)


def _overrides(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, Any]:
    return parsed(value, "--set")


def parsed(texts: Sequence[str], where: str) -> dict[str, Any]:
    """KEY=VALUE texts as what they set; `where` is named in errors. Raises UserError for a key that is there twice, too."""
    from saccade.core.config import parse_override
    from saccade.core.errors import UserError

    found: dict[str, Any] = {}
    for key, value in (parse_override(text, where) for text in texts):
        if key in found:
            raise UserError(f"{key} is given twice", where=where, fix=f"leave one {key}=VALUE out")
        found[key] = value
    return found


def output(function: F) -> F:
    """--json and --quiet, which every verb has."""
    function = click.option("--quiet", is_flag=True, help="No progress and no messages, only the result.")(function)
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")(function)


def compute(function: F) -> F:
    """--device and --precision, for verbs that compute."""
    precisions = click.Choice(["auto", "fp32", "bf16", "fp16"])
    help = "Number format of the computation."
    return device(click.option("--precision", type=precisions, default="auto", show_default=True, help=help)(function))


_DEVICES = "auto|cpu|cuda|mps"
_DEVICE_HELP = "Where to compute; cuda:1 is one of several."
_SEED_HELP = "Every random draw follows from it."
_PIXELS_HELP = "Largest image accepted, height times width."
_SET_HELP = "Any value of the configuration; may be repeated."

device = click.option("--device", metavar=_DEVICES, default="auto", show_default=True, callback=_device, help=_DEVICE_HELP)
SEEDS = click.IntRange(0, (1 << 63) - 1)
seed = click.option("--seed", metavar="N", type=SEEDS, default=0, show_default="0", help=_SEED_HELP)
# Where a configuration may hold a seed: an option that is not given must not go before it.
seed_if_given = click.option("--seed", metavar="N", type=SEEDS, help=f"{_SEED_HELP} Default: the configuration's, else 0.")
max_pixels = click.option("--max-pixels", metavar="N", type=click.IntRange(1), default=50_000_000, show_default=True, help=_PIXELS_HELP)
batch = click.option("--batch", metavar="N|auto", callback=_batch, help="Images a step.")
overrides = click.option("--set", "set", metavar="KEY=VALUE", multiple=True, callback=_overrides, help=_SET_HELP)


licenses = click.option("--license", metavar="A,B,C", help="Licences that weights from elsewhere may be under; others are refused unread.")


def looking(function: F) -> F:
    """--nms and --tile, of models that find objects, and --tta, of those that name pixels too."""
    ways = click.Choice(["class", "agnostic", "soft", "none"])
    function = click.option(
        "--tta", is_flag=True, help="Objects: look at each image mirrored and at two other sizes too; classes of pixels: mirrored."
    )(function)
    help = "Objects: look at large images in tiles of this side in pixels too, for what is small in them."
    function = click.option("--tile", metavar="PX", type=click.IntRange(0), default=0, show_default="none", help=help)(function)
    help = "Objects: how doubles are suppressed: within a class, whatever the class, softly, not at all. Default: the model's own way."
    return click.option("--nms", type=ways, help=help)(function)


def size(default: str | None, help: str) -> Callable[[F], F]:
    """--size S or HxW, given on as (height, width)."""
    return click.option("--size", metavar="S|HxW", default=default, show_default=default is not None, callback=_size, help=help)


def out(help: str, *, required: bool = False) -> Callable[[F], F]:
    """--out PATH."""
    return click.option("--out", type=click.Path(), required=required, help=help)


def task(default: str | None, help: str) -> Callable[[F], F]:
    """--task NAME; which tasks there are, the API knows."""
    return click.option("--task", metavar="TASK", default=default, show_default=default is not None, help=help)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """The progress that suits where we run; its bar is closed before an error is printed."""
    from saccade.core.progress import automatic

    shown = automatic(quiet)
    try:
        yield shown
    finally:
        shown.finish()
