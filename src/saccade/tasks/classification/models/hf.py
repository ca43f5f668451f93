"""Classifiers of transformers behind the room's doors: what a `config.json` describes, as plain JSON that rebuilds it exactly.

Only classes of transformers itself are built, by the name of their family; code that a repository brings is never run.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.core import files, licenses
from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer
from saccade.data.reading import parse_yaml
from saccade.nn import checkpoints, fitting, hub, pretrained, stems
from saccade.nn.checkpoints import Place
from saccade.task import ModelRow
from saccade.tasks.classification.models import hf_rows
from saccade.tasks.classification.models.hf_rows import CONFIG, FAMILIES

COLOURS = 3
MOST, MOST_LAYERS, MOST_ENTRIES = 1 << 14, 512, 64
LAYERS = ("layers", "depth", "blocks", "repeats")  # in the names of settings that count modules
# Settings that say nothing of the network: names of classes are the card's, all else is of other uses.
LEFT_OUT = {
    *("transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type", "model_type"),
    *("_name_or_path", "auto_map", "output_attentions", "output_hidden_states", "return_dict", "use_cache", "num_channels"),
}
TOKENS = ("beit", "deit", "dinov2", "dinov2_with_registers", "ijepa", "vit", "vit_msn")  # families whose layers give tokens
WHOLE, PICKLED, PIXELS, CARD = "model.safetensors", "pytorch_model.bin", "preprocessor_config.json", "README.md"
CLASSES = 1000  # of a configuration that names none: ImageNet's


class Hf(nn.Module):
    """float `[B, C, H, W]` -> logits `[B, K]`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        logits: Tensor = self.model(images).logits
        return logits

    @property
    def tokens(self) -> nn.Module | None:
        """The last module that has all tokens of a plain vision transformer, `[B, N, D]`, before attention mixes them; None where there are
        maps, or none is known."""
        found = [part for name, part in self.model.named_modules() if name.endswith((".layernorm_before", ".norm1"))]
        plain = self.model.config.model_type in TOKENS and found
        return found[-1] if plain else None

    def reset_classifier(self, classes: int) -> None:
        """Leave out the last layer: what it is given comes out, as of a network of timm."""
        self.model.classifier = nn.Identity()

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a state dict of this transformers or of an older one, by their names in its network."""
        conversions: Any = importlib.import_module("transformers.conversion_mapping")
        renamings = conversions.get_model_conversion_mapping(self.model)
        return hub.renamed(tensors, renamings, "model.")


@dataclass(frozen=True)
class Found:
    """A repository or folder: its name, and how to get its files."""

    name: str
    place: Path | str

    @property
    def called(self) -> str:
        """What files say of it: a folder by its own name alone."""
        return self.name if isinstance(self.place, str) else f"{hf_rows.PREFIX}{self.place.absolute().name}"

    def file(self, name: str) -> Path:
        """A file of it; raises UserError, naming the address, where it cannot be had."""
        if isinstance(self.place, str):
            return pretrained.from_hub(self.name, self.place, name)
        if not (self.place / name).is_file():
            raise UserError(f"the folder holds no {name}", where=str(self.place), fix=pretrained.BY_HAND)
        return self.place / name

    def any_file(self, *names: str) -> Path | None:
        """The first of them that it has; None where it is known to have none of them."""
        for name in names:
            try:
                return self.file(name)
            except UserError as error:
                if isinstance(self.place, str) and "holds no" not in error.message:
                    raise
        return None


def described(name: str, *, classes: int, channels: int, size: tuple[int, int]) -> dict[str, Any]:
    """The architecture of `name` for images of `channels` and (height, width). Raises UserError where its configuration cannot be had, or
    is none of a classifier that is known here."""
    found, raw, family = _configured(name)
    settings = {key: value for key, value in raw.items() if key in _defaults(family) and key not in LEFT_OUT and value is not None}
    plain: dict[str, Any] = {"source": "transformers", "name": found.called, "family": family, "settings": settings}
    plain |= {"arguments": {"classes": classes, "channels": channels}, "size": list(size)}
    return _first_that_works(plain)


def _configured(name: str) -> tuple[Found, dict[str, Any], str]:
    """What a name stands for, what its configuration says, and its family. Raises UserError where the configuration cannot be had."""
    hf_rows.check(name)
    found = Found(name, hf_rows.source(name))
    try:
        raw = files.read_json(found.file(CONFIG))
    except UserError as error:
        if error.fix != pretrained.BY_HAND:
            raise
        fix = f"bring the file on another machine, and give its folder as {hf_rows.PREFIX}FOLDER"
        raise UserError(error.message, where=name, fix=fix) from None
    family = raw.get("model_type") if isinstance(raw, dict) else None
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"is of the family {family!r}, must be of one of {known}", where=name, fix="take a model of timm: saccade models")
    return found, raw, family


def row(name: str) -> ModelRow:
    """What is known of one that stands in no table: of its own classes and for one image of its own size, counted without its weights, and
    what its model card states. Raises UserError where its configuration cannot be had."""
    found, raw, family = _configured(name)
    labels, side = raw.get("id2label"), raw.get("image_size", _defaults(family).get("image_size"))
    count = len(labels) if isinstance(labels, dict) and labels else CLASSES
    size = (side, side) if type(side) is int and 0 < side <= MOST else hf_rows.SIZE
    architecture = described(name, classes=count, channels=COLOURS, size=size)
    with torch.device("meta"), torch.no_grad():
        network = build(architecture).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, COLOURS, *size))
    license, _ = license_of(name)
    metric, dataset = _measured(found)
    parameters = sum(value.numel() for value in network.parameters())
    weights = str(found.place) if isinstance(found.place, str) else ""
    return ModelRow(name, "transformers", parameters, license, metric, dataset, size, int(counter.get_total_flops()), weights)


def _measured(found: Found) -> tuple[float | None, str]:
    """The first accuracy that a model card states under `model-index` (0 to 1), and the name of the images; None and "" without one."""
    try:
        text = found.file(CARD).read_text(encoding="utf-8", errors="replace")
        head = re.match(r"---\s*\n(.*?)\n---", text, re.S)
        told = parse_yaml(head[1].encode(), CARD) if head else {}
        results = [result for one in told["model-index"] for result in one["results"]]
        stated = [(one, result) for result in results for one in result["metrics"] if one["type"] == "accuracy"]
        for one, result in stated:
            value = float(one["value"]) / (100 if float(one["value"]) > 1 else 1)
            if 0 <= value <= 1:
                return round(value, 5), str(result.get("dataset", {}).get("name", ""))[:80]
    except (UserError, KeyError, TypeError, ValueError, AttributeError):  # whatever people write there
        return None, ""
    return None, ""


def build(architecture: Mapping[str, Any], elements: int | None = None) -> nn.Module:
    """The module that an architecture describes, which may come from an untrusted file, with fresh weights; raises UserError for one that
    is not one of ours, or of more than `elements` numbers."""
    plain = _checked(architecture)
    hf_rows.check_installed(plain["name"])
    if elements is not None:
        with torch.device("meta"):
            needed = sum(value.numel() for value in _module(plain).state_dict().values())
        if needed > elements:
            raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return _module(plain)


def start_from_published(name: str, architecture: Mapping[str, Any]) -> tuple[nn.Module, dict[str, str], InputSpec]:
    """The network with the weights of its repository or folder, safetensors before pickled ones, which a process of its own opens; their
    link of the chain of descent; and what they expect of their input, for three channels."""
    found = Found(name, hf_rows.source(name))
    told = license_of(name)
    file = found.any_file(WHOLE, PICKLED)
    if file is None:
        raise UserError(f"holds neither {WHOLE} nor {PICKLED}", where=name, fix=pretrained.BY_HAND)
    channels, colours = architecture["arguments"]["channels"], {**architecture["arguments"], "channels": COLOURS}
    network = _module({**architecture, "arguments": colours})
    names, heads = dict(network.named_parameters()), _heads(architecture)
    needed = sum(value.numel() for key, value in names.items() if key not in heads)
    taken = checkpoints.take(network, checkpoints.read(file), Place(), (), least=0.0)
    missing = [key for key in names if key not in taken.match.names and key not in heads]
    if missing or not needed:
        raise UserError(f"the weights do not fit {name}: {taken.report}", where=str(file), fix="pip install -U transformers")
    if channels != COLOURS:
        source, network = network, _module(architecture)
        fitting.carry(source, network, COLOURS, channels)
    link = pretrained.Weights("", file.name, _address(found, file), told[0], (), (), (1, 1), data=told[1]).link(found.called, file)
    return network, link, InputSpec(COLOURS, (1, 1), "crop", *_colours(found))


def license_of(name: str) -> tuple[str, str]:
    """The licence and the data sets that the model card states, README.md, fetched if need be; "unknown" and "" where it cannot be had."""
    try:
        file = Found(name, hf_rows.source(name)).file(CARD)
    except UserError:
        return licenses.UNKNOWN, ""
    return pretrained.stated(file.read_text(encoding="utf-8", errors="replace"))


def _address(found: Found, file: Path) -> str:
    return f"{pretrained.HUB}/{found.place}/resolve/main/{file.name}" if isinstance(found.place, str) else ""


def _colours(found: Found) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that preprocessor_config.json states, ImageNet's without one."""
    file = found.any_file(PIXELS)
    raw = files.read_json(file) if file is not None else {}
    mean, std = (raw.get(key) for key in ("image_mean", "image_std")) if isinstance(raw, dict) else (None, None)
    if not raw or raw.get("do_normalize") is False:
        return ((0.0,) * COLOURS, (1.0,) * COLOURS) if raw else (pretrained.MEAN, pretrained.STD)
    for values in (mean, std):
        if not (isinstance(values, list) and len(values) == COLOURS and all(isinstance(one, int | float) for one in values)):
            return pretrained.MEAN, pretrained.STD
    return tuple(map(float, mean)), tuple(map(float, std))  # type: ignore[arg-type]


def _heads(architecture: Mapping[str, Any]) -> set[str]:
    """The names of the tensors that have rows of classes."""
    with torch.device("meta"):
        some, more = (_module({**architecture, "arguments": {"classes": count, "channels": COLOURS}}) for count in (3, 4))
    shapes = {name: value.shape for name, value in more.named_parameters()}
    return {name for name, value in some.named_parameters() if shapes[name] != value.shape}


def _first_that_works(plain: dict[str, Any]) -> dict[str, Any]:
    """With the size that the network runs at: the image's, enlarged where it is small, else the network's own."""
    channels, classes = plain["arguments"]["channels"], plain["arguments"]["classes"]
    problem = ""
    for inner in _sizes(plain):
        architecture = {**plain, "inner": list(inner)}
        try:
            with torch.device("meta"), torch.no_grad():
                outputs = build(architecture).eval()(torch.empty(2, channels, *plain["size"]))
        except UserError:
            raise
        except Exception as error:  # its networks raise anything for a size that does not fit them
            problem = problem or f"{type(error).__name__}: {error}"
            continue
        if outputs.shape == (2, classes):
            return architecture
    height, width = plain["size"]
    message = f"{plain['name']} cannot classify images of {channels} channels and {height}x{width} px: {problem[:200]}"
    raise UserError(message, where="size", fix="take another model or --size 224")


def _sizes(plain: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    height, width = plain["size"]
    scale = -(-stems.ENLARGED // max(height, width)) if max(height, width) <= stems.SMALL else 1
    yield height * scale, width * scale
    native = plain["settings"].get("image_size", _defaults(plain["family"]).get("image_size", 224))
    sides = native if isinstance(native, list | tuple) else (native, native)
    if len(sides) == 2 and all(type(side) is int for side in sides):
        yield sides[0], sides[1]


def _module(plain: Mapping[str, Any]) -> nn.Module:
    family, arguments = plain["family"], plain["arguments"]
    settings = {**plain["settings"], "num_labels": arguments["classes"]}
    if "num_channels" in _defaults(family):
        settings["num_channels"] = arguments["channels"]
    elif arguments["channels"] != COLOURS:
        raise UserError(f"networks of the family {family} take 3 channels, not {arguments['channels']}", where="channels")
    begin = FAMILIES[family]
    modeling: Any = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    try:
        network = Hf(getattr(modeling, f"{begin}ForImageClassification")(_config(family)(**settings)))
    except Exception as error:  # its constructors raise anything for values that do not fit them
        said = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be built: {said}", where=str(plain["name"]), fix="pip install -U transformers") from None
    inner = (int(plain["inner"][0]), int(plain["inner"][1])) if "inner" in plain else None
    return network if inner is None or list(inner) == list(plain["size"]) else stems.Resized(network, inner)


def _config(family: str) -> Any:
    module: Any = importlib.import_module(f"transformers.models.{family}.configuration_{family}")
    return getattr(module, f"{FAMILIES[family]}Config")


def _defaults(family: str) -> dict[str, Any]:
    found: dict[str, Any] = _config(family)().to_dict()
    return found


def _checked(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture with nothing in it but what `described` writes."""
    try:
        name, family, settings = architecture["name"], architecture["family"], dict(architecture["settings"])
        ours = isinstance(name, str) and name.startswith(hf_rows.PREFIX) and architecture["source"] == "transformers"
        if not ours or family not in FAMILIES:
            raise ValueError(f"{name!r} must be hf/OWNER/NAME, {family!r} a family of transformers")
        known = _defaults(family)
        for key, value in settings.items():
            if key not in known or key in LEFT_OUT or not _is_plain(value, MOST_LAYERS if any(word in key for word in LAYERS) else MOST):
                raise ValueError(f"{key}={str(value)[:80]} is not allowed")
        arguments = dict(architecture["arguments"])
        sizes = [architecture["size"], architecture["inner"]]
        numbers = [arguments["classes"], arguments["channels"], *sizes[0], *sizes[1]]
        whole = len(numbers) == 6 and all(type(one) is int and 0 < one <= 1_000_000 for one in numbers)
        if set(arguments) != {"classes", "channels"} or not whole:
            raise ValueError("classes, channels and two sizes must be whole numbers")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"not the architecture of a classifier of transformers: {error}", where="card") from None
    plain = {"source": "transformers", "name": name, "family": family, "settings": settings, "arguments": arguments}
    return plain | {"size": list(sizes[0]), "inner": list(sizes[1])}


def _is_plain(value: Any, most: int) -> bool:
    """Whether a setting is a truth, a short text, a number up to `most`, or a short list of such."""
    if isinstance(value, list):
        return len(value) <= MOST_ENTRIES and all(_is_plain(one, most) for one in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        return len(value) <= MOST_ENTRIES
    return isinstance(value, int | float) and abs(value) <= most
