"""The models that make images, by name. No torch here: `build` imports what it needs."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from saccade.core.card import Card
from saccade.core.config import GenerationConfig, TrainConfig
from saccade.core.errors import UserError, unknown
from saccade.task import ModelRow
from saccade.tasks.generation.metrics import name_of

if TYPE_CHECKING:
    from saccade.tasks.generation.models.base import Maker

FAMILIES = {"r3gan": "gan", "dcgan": "gan", "vae": "vae", "vqvae": "vqvae", "autoencoder_kl": "vae", "vq_model": "vqvae"}
DIFFUSERS = ("autoencoder_kl", "vq_model")  # whose networks are another library's
LATENT = 64  # numbers that an image is made from, where nothing else is asked for
COARSEST = 4  # cells of the coarse grid's shorter side, or up to twice as many
MOST_WIDTH = 256
FINEST = 48
CHANNELS = 4  # latent numbers of a cell, as in Rombach et al. 2022
MOST = {"latent": 1 << 16, "classes": 1_000_000, "blocks": 64, "codes": 1 << 16, "channels": 1024}
_EVERY = ("features",)
_ADVERSARIES = ("conditional", "latent", "loss", "r1", "r2", "gradient_penalty", "penalty_every", "augment", "adaptive")
_LENT = ("likelihood", "loss", "r1", "penalty_every", "perceptual", "adversarial", "adversarial_after")
_SETTINGS = {
    "r3gan": _ADVERSARIES,
    "dcgan": _ADVERSARIES,
    "vae": ("conditional", "latent", "likelihood", "beta", "kl_warmup", "free_bits"),
    "vqvae": ("conditional", "likelihood"),
    "autoencoder_kl": ("beta", "kl_warmup", "free_bits", *_LENT),
    "vq_model": ("conditional", *_LENT),
}
_ROWS = (
    ModelRow("r3gan", "saccade", 604_757),
    ModelRow("dcgan", "saccade", 1_580_738),
    ModelRow("vae", "saccade", 976_832),
    ModelRow("vqvae", "saccade", 492_240),
    ModelRow("autoencoder_kl", "diffusers", 2_865_639),
    ModelRow("vq_model", "diffusers", 3_164_911),
)


def rows() -> tuple[ModelRow, ...]:
    """All models; `parameters` counts those for 32x32 grey images without classes (a test holds them true)."""
    return _ROWS


def find(name: str) -> str:
    """The family of a model: "gan", "vae" or "vqvae". Raises UserError with the nearest names."""
    if name not in FAMILIES:
        raise unknown("model", name, FAMILIES, where="--model")
    return FAMILIES[name]


def refuse_settings(name: str, settings: GenerationConfig) -> None:
    """Raise UserError for a setting that a model does not have: it would be passed over."""
    for one in fields(settings):
        value = getattr(settings, one.name)
        if one.name not in (*_EVERY, *_SETTINGS[name]) and value != one.default:
            having = " and ".join(other for other, known in _SETTINGS.items() if one.name in known)
            raise UserError(
                f"{one.name} belongs to {having}", where=f"generation.{one.name}", fix=f"leave it out, or take another model than {name}"
            )
    if name in DIFFUSERS and settings.likelihood not in ("", "gaussian"):
        raise UserError(f"{name} has likelihood gaussian", where="generation.likelihood", fix="leave it out")
    if name in DIFFUSERS and settings.loss == "wasserstein":
        raise UserError("wasserstein needs a gradient_penalty, which this judge has not", where="generation.loss", fix="hinge is usual")


def find_diffusers(name: str) -> None:
    """Raise UserError where the library is missing; it is not loaded: that takes seconds."""
    if importlib.util.find_spec("diffusers") is None:
        raise UserError(f"{name} needs diffusers, which is not installed", where="--model", fix="pip install 'saccade[diffusers]'")


def has_latent(name: str) -> bool:
    """Whether images are made from any number of latents; a grid of them follows from the images' size."""
    return FAMILIES[name] != "vqvae" and name not in DIFFUSERS


def latent(config: TrainConfig) -> int:
    """Normal numbers that a training step needs for each image."""
    if FAMILIES[config.model] == "vqvae":
        return 0
    if config.model in DIFFUSERS:
        cell = 2 ** (len(_widths(config.model, config.size)) - 1)
        return CHANNELS * math.prod(-(-side // cell) for side in config.size)
    return config.generation.latent or LATENT


def architecture(config: TrainConfig, classes: int) -> dict[str, Any]:
    """Plain JSON that rebuilds the model of a configuration. classes: 0 where images are not made by class."""
    family = find(config.model)
    settings = config.generation
    arguments: dict[str, Any] = {
        "shape": [config.channels, *config.size],
        "classes": classes,
        "widths": _widths(config.model, config.size),
        "blocks": 1,
    }
    if config.model in DIFFUSERS:
        arguments["channels"] = CHANNELS
    elif family != "gan":
        arguments["likelihood"] = settings.likelihood or "logistic"
    if has_latent(config.model):
        arguments["latent"] = latent(config)
    if family == "vqvae":
        arguments["codes"] = 256
    return {
        "source": "diffusers" if config.model in DIFFUSERS else "saccade",
        "name": config.model,
        "arguments": arguments,
        "features": name_of(settings.features),
    }


def _widths(name: str, size: tuple[int, int]) -> list[int]:
    """Channels by stage, the coarsest first: halved from stage to stage, so that each stage is about as much work."""
    stages = max(1, int(math.log2(max(1.0, min(size) / COARSEST))))
    if name in DIFFUSERS:
        return [128, 64, 32] if min(size) <= 128 else [128, 128, 64, 32]  # a cell for each 4x4 or 8x8 pixels
    if name == "vqvae":
        return [128, 64]  # a code for each 4x4 pixels, whatever the size
    if name == "dcgan":
        return [min(512, 64 * 2**place) for place in range(stages)][::-1]
    return [min(MOST_WIDTH, FINEST * 2**place) for place in range(stages)][::-1]


def build(card: Card, elements: int | None = None) -> Maker:
    """The module that a card describes, with fresh weights.

    Raises UserError for an architecture that is not known here, or one of more than `elements` numbers: the card of a file
    from somewhere else must not make us allocate what its weights do not fill.
    """
    import torch

    try:
        name, arguments = card.architecture["name"], _arguments(dict(card.architecture["arguments"]))
        _check(card, arguments)
        constructor = _constructor(name)
        with torch.device("meta"):
            needed = sum(value.numel() for value in constructor(**arguments).state_dict().values())
    except (TypeError, KeyError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"not an architecture of ours: {error}", where="card") from None
    if elements is not None and needed > elements:
        raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    maker: Maker = constructor(**arguments)
    return maker


def _constructor(name: str) -> Any:
    from saccade.tasks.generation.models import autoencoders, gan, vae, vqvae

    constructors = {"r3gan": gan.residual, "dcgan": gan.plain, "vae": vae.Vae, "vqvae": vqvae.VqVae}
    return {**constructors, "autoencoder_kl": autoencoders.AutoencoderKl, "vq_model": autoencoders.VqModel}[name]


def _check(card: Card, arguments: Mapping[str, Any]) -> None:
    """The images must be those of the card, and the classes too."""
    if tuple(arguments["shape"]) != (card.input.channels, *card.input.size) or arguments["classes"] not in (0, len(card.classes)):
        raise ValueError("its shape and classes are not those of the card")


def _arguments(raw: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments, each of its kind and within bounds; the constructor itself refuses names that it lacks."""
    shape, widths = raw["shape"], raw["widths"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(_whole(n, 1, 16384) for n in shape)):
        raise ValueError(f"shape must be channels, height and width, got {str(shape)[:80]}")
    if not (isinstance(widths, list) and 1 <= len(widths) <= 12 and all(_whole(n, 1, 8192) for n in widths)):
        raise ValueError(f"widths must be 1 to 12 numbers, got {str(widths)[:80]}")
    for name, most in MOST.items():
        if name in raw and not _whole(raw[name], 0 if name == "classes" else 1, most):
            raise ValueError(f"{name} must be at most {most}, got {str(raw[name])[:80]}")
    return {**raw, "shape": tuple(shape), "widths": tuple(widths)}


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
