"""timm's and torchvision's classifiers by name, fitted to any image size, with the plain-JSON description that rebuilds each exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.core import modelfile
from saccade.core.errors import UserError, unknown
from saccade.nn import checkpoints, fitting, stems
from saccade.nn import pretrained as published
from saccade.nn.checkpoints import Place
from saccade.nn.features import feature_layer

__all__ = ["classifier", "feature_layer", "rebuild"]

MAX_CLASSES = 1_000_000
MAX_CHANNELS = 1024
MAX_SIDE = 16384
COLOURS = 3  # channels that the libraries' weights have learned from
TORCHVISION = "torchvision/"  # before the names of its own
JUDGES = ("googlenet", "inception_v3")  # of torchvision, with judges of inner layers, which are left out
ARGUMENTS = {"num_classes": MAX_CLASSES, "in_chans": MAX_CHANNELS, "patch_size": 64}  # and img_size; the largest value of each


def classifier(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (224, 224),
    pretrained: bool | Path = False,
    small_stem: bool | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """timm's model `name` (or `name.tag`), or torchvision's (`torchvision/name`), for float images [B, channels, *size] -> logits
    [B, classes], and its `architecture`.

    pretrained: False takes random weights from torch's global generator, True fetches the published ones, a path takes
    a .safetensors file of them; first and last layer are adapted to `channels` and `classes`. small_stem: None gives
    images of at most 64 px a stem that suits them (an enlarged input where there is none, and where the weights are
    pre-trained); True asks for the stem also with those, which leaves changed layers random; False leaves the network as it is.

    Raises UserError for an unknown name, values out of range, an image that the network cannot take, and weights that cannot be had.
    """
    _check(name, classes, channels, size)
    arguments = {"num_classes": classes, "in_chans": channels}
    bare = _create(name, arguments, meta=True)
    kept = bool(pretrained) and small_stem is None
    ways = stems.as_it_is(bare, size) if kept else stems.plans(bare, size, small_stem=small_stem)
    architecture = _first_that_works(_architectures(bare, name, arguments, size, ways), size)
    if not pretrained:
        return _build(architecture), architecture
    file = published.fetch(name) if pretrained is True else published.local(Path(pretrained), name)
    return _build(architecture, weights=file), architecture


def rebuild(architecture: Mapping[str, Any], *, elements: int | None = None) -> nn.Module:
    """The module that `architecture` describes, with random weights; the description may come from an untrusted file.

    elements: where given, how many parameters the file at hand holds at most: a description that asks for more is refused before
    anything is allocated. Raises UserError for a description that is not one of ours.
    """
    plain = _checked(architecture)
    try:
        if elements is not None:
            if plain["source"] == "torchvision" and published.torchvisions(plain["name"]).parameters > 4 * elements:
                raise ValueError(f"the file holds {elements} numbers, which is too few")  # before any is allocated
            asked = sum(p.numel() for p in _build(plain, meta=True).parameters())
            if asked > elements:
                raise ValueError(f"it has {asked} parameters, the file holds {elements}")
        return _build(plain)
    except UserError:
        raise
    except Exception as error:  # timm's constructors raise anything for values that do not fit them
        raise UserError(f"the architecture {plain['name']} cannot be rebuilt: {error}", where="architecture") from None


def _build(architecture: Mapping[str, Any], *, weights: Path | None = None, meta: bool = False) -> nn.Module:
    with torch.device("meta") if meta else torch.device("cpu"):
        network = _create(architecture["name"], architecture["arguments"], meta=meta, weights=weights)
        network = stems.apply(network, architecture["stem"])
    inner = (architecture["inner"][0], architecture["inner"][1])
    network.example_size = inner  # type: ignore[assignment]  # for `feature_layer`: which layer still has a map depends on it
    return network if list(inner) == architecture["size"] else stems.Resized(network, inner)


def _create(name: str, arguments: Mapping[str, Any], *, meta: bool = False, weights: Path | None = None) -> nn.Module:
    """The library's module. A file of weights goes through timm's own adaption to classes, patches and grid; of torchvision's its head is
    left out where the classes are others. Other channels than red, green and blue are seen by what has learned these (`nn.fitting`)."""
    if name.startswith(TORCHVISION):
        return _of_torchvision(name, arguments, meta=meta, weights=weights)
    import timm

    module: nn.Module

    colours = {**arguments, "in_chans": COLOURS}
    if weights is not None and arguments != colours:
        source, module = _create(name, colours, weights=weights), _create(name, arguments)
        try:
            fitting.carry(source, module, COLOURS, arguments["in_chans"])
        except ValueError as error:
            raise UserError(f"the weights of {name} cannot be given other channels: {error}", where="channels") from None
        return module
    if weights is not None:
        modelfile.peek(weights)  # its readers say of a damaged file only what safetensors says
    overlay = {"file": str(weights), "custom_load": False} if weights else None
    with torch.device("meta") if meta else torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's remarks on its own registry
        try:
            module = timm.create_model(name, pretrained=weights is not None, pretrained_cfg_overlay=overlay, **arguments)
        except (RuntimeError, OSError, KeyError) as error:
            if weights is None:
                raise
            raise UserError(f"the weights do not fit {name}: {error}", where=str(weights)) from None
    return module


def _of_torchvision(name: str, arguments: Mapping[str, Any], *, meta: bool, weights: Path | None) -> nn.Module:
    from torchvision import models

    base, classes = name.removeprefix(TORCHVISION).partition(".")[0], arguments["num_classes"]
    judges: dict[str, Any] = {"aux_logits": False, "init_weights": not meta} if base in JUDGES else {}
    size = published.torchvisions(name).size
    sides: dict[str, Any] = {"image_size": size[0]} if base.startswith("vit_") else {}
    # RegNets compute their widths with tensors, which on the meta device have no values.
    with torch.device("meta") if meta and not base.startswith("regnet") else torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = models.get_model(base, weights=None, num_classes=classes, **judges, **sides)
    module = module.to("meta") if meta else module
    if weights is not None:
        checkpoints.take(module, checkpoints.read(weights), Place(), (), least=0.5)
    if arguments["in_chans"] != COLOURS:
        _see(module, arguments["in_chans"], learned=weights is not None)
    module.pretrained_cfg = {"input_size": (3, *size)}  # type: ignore[assignment]  # as of timm's: what `stems` looks for
    return module


def _see(network: nn.Module, channels: int, *, learned: bool) -> None:
    """Give a network of torchvision for colours a first layer for other channels, with what it has learned."""
    name, first = next(
        (name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and part.in_channels == COLOURS
    )
    settings: Any = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    with torch.device(first.weight.device):
        new = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **settings)
    if learned:
        with torch.no_grad():
            new.weight.copy_(fitting.channels(first.weight, COLOURS, channels))
            if new.bias is not None and first.bias is not None:
                new.bias.copy_(first.bias)
    elif not new.weight.is_meta:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)


def _architectures(
    bare: nn.Module, name: str, arguments: Mapping[str, Any], size: tuple[int, int], ways: Iterator[stems.Plan]
) -> Iterator[dict[str, Any]]:
    # Networks with positions are built for one size; all others would not know the argument.
    fixed = bool(getattr(bare, "pretrained_cfg", {}).get("fixed_input_size", False))
    for way in ways:
        more = way.arguments | ({"img_size": list(way.size)} if fixed else {})
        yield {
            "source": "torchvision" if name.startswith(TORCHVISION) else "timm",
            "name": name,
            "arguments": {**arguments, **more},
            "stem": way.stem,
            "size": list(size),
            "inner": list(way.size),
        }


def _first_that_works(candidates: Iterator[dict[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
    """The first architecture that takes two images; tried on the meta device, where nothing is allocated or computed."""
    problem, architecture = "", {}
    for architecture in candidates:
        arguments = architecture["arguments"]
        try:
            module = _build(architecture, meta=True).eval()
            with torch.no_grad():
                outputs = module(torch.empty(2, arguments["in_chans"], *size, device="meta"))
        except Exception as error:  # timm's networks raise anything for a size that does not fit them
            problem = problem or f"{type(error).__name__}: {error}"
            continue
        if isinstance(outputs, torch.Tensor) and outputs.shape == (2, arguments["num_classes"]):
            return architecture
        problem = "it gives no logits"
    name = architecture.get("name", "")
    message = f"{name} cannot classify images of {arguments['in_chans']} channels and {size[0]}x{size[1]} px: {problem[:200]}"
    raise UserError(message, where="size", fix="take another model or --size 224")


def _check(name: str, classes: int, channels: int, size: tuple[int, int]) -> None:
    _check_name(name)
    for what, value, most in (("classes", classes, MAX_CLASSES), ("channels", channels, MAX_CHANNELS), ("size", min(size), MAX_SIDE)):
        if not 1 <= value <= most:
            raise UserError(f"{what} must be 1 to {most}, got {value}", where=what)
    if max(size) > MAX_SIDE:
        raise UserError(f"size must be 1 to {MAX_SIDE}, got {max(size)}", where="size")


def _check_name(name: str) -> None:
    """Names of the libraries' tables only: timm's "hf-hub:" and "local-dir:" would reach the network and the disk."""
    if name.startswith(TORCHVISION):
        published.torchvisions(name)
        return
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise unknown("model", name, timm.list_models(), where="--model")
    tagged = timm.list_models(f"{base}.*", pretrained=True) if tag else []
    if tag and name not in tagged:
        raise unknown("model", name, tagged or [base], where="--model")


def _checked(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The description with nothing in it but what `classifier` writes."""
    try:
        name, stem = architecture["name"], dict(architecture["stem"])
        if not isinstance(name, str) or architecture["source"] != ("torchvision" if name.startswith(TORCHVISION) else "timm"):
            raise ValueError(f"source must be the library of {name!r}, is {architecture['source']!r}")
        arguments = {key: _argument(key, value) for key, value in dict(architecture["arguments"]).items()}
        size, inner = _pair(architecture["size"]), _pair(architecture["inner"])
        if not {"num_classes", "in_chans"} <= set(arguments) or not all(isinstance(v, str | int) for v in stem.values()):
            raise ValueError("num_classes, in_chans and a flat stem are needed")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"not the architecture of a classifier of timm or torchvision: {error}", where="architecture") from None
    _check_name(name)
    return {"source": architecture["source"], "name": name, "arguments": arguments, "stem": stem, "size": size, "inner": inner}


def _argument(key: str, value: Any) -> Any:
    if key == "img_size":
        return _pair(value)
    if key not in ARGUMENTS or not isinstance(value, int) or not 1 <= value <= ARGUMENTS[key]:
        raise ValueError(f"{key}={value!r} is not allowed")
    return value


def _pair(value: Any) -> list[int]:
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) and 1 <= v <= MAX_SIDE for v in value)):
        raise ValueError(f"a size must be [height, width], got {value!r}")
    return [int(v) for v in value]
