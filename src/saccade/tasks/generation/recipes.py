"""The recipe: model, size and rates from what the data and the budget tell, each value with its reason.

The rates of the default GAN come from a few short trials on handwritten digits at 32 pixels; those of the others are usual in the field.
`benchmarks/generation.py` is what judges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saccade.core.config import AugmentConfig, GenerationConfig, TrainConfig
from saccade.data.sample import Schema
from saccade.task import Budget
from saccade.tasks.generation import models

SMALL = 64  # pixels up to which images are made at their own size
DEFAULT = "r3gan"
CPU_MINUTES = 30.0
FEW = 5_000  # training images below which a judge learns them by heart
ENOUGH = 20  # images a class needs to be made by itself
IMAGES_SEEN = {"gan": 8_000_000, "vae": 6_000_000, "vqvae": 6_000_000}
RATES = {"r3gan": 1.5e-3, "dcgan": 2e-4, "vae": 2e-3, "vqvae": 1e-3, "autoencoder_kl": 5e-4, "vq_model": 5e-4}


def choose(schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
    """The configuration for this data, and a reason by line, each beginning with the key it explains."""
    reasons: list[str] = []
    size, why = _size(schema, budget)
    reasons.append(f"size: {size[0]}x{size[1]}, {why}")
    reasons += _warnings(schema, size)
    model = budget.model or DEFAULT
    others = ", ".join(name for name in models.FAMILIES if name != DEFAULT)
    reasons.append(f"model: {model}, {'as asked' if budget.model else f'a modern GAN that trains steadily; others are {others}'}")
    family = models.find(model)
    images = schema.images.get("train", 0)
    settings, whys = _settings(schema, model, images)
    reasons += whys
    epochs = max(1, min(2000, round(IMAGES_SEEN[family] / max(1, images))))
    minutes = budget.limit(device, CPU_MINUTES, reasons)
    config = TrainConfig(
        task="generate",
        model=model,
        epochs=float(epochs),
        minutes=minutes,
        size=size,
        channels=schema.channels,
        batch=32 if model == "r3gan" else 64,
        lr=RATES[model],
        betas=(0.0, 0.99) if model == "r3gan" else (0.5, 0.999) if model == "dcgan" else (0.9, 0.99),
        weight_decay=0.0 if family == "gan" else 0.01,
        warmup=0.02,
        ema=0.02,
        clip=0.0 if family == "gan" else 1.0,
        on_nan="back",
        augment=AugmentConfig(),
        generation=settings,
    )
    reasons.append(f"epochs: {epochs} at most, from {images:,} training images")
    return config, reasons


def _size(schema: Schema, budget: Budget) -> tuple[tuple[int, int], str]:
    if budget.size is not None:
        return budget.size, "as asked"
    if max(schema.size) <= SMALL:
        return schema.size, "the images' own size" if schema.uniform else "the images' median size"
    scale = SMALL / min(schema.size)
    height, width = (max(8, round(side * scale / 8) * 8) for side in schema.size)
    return (
        min(height, 2 * SMALL),
        min(width, 2 * SMALL),
    ), f"images of about {schema.size[0]}x{schema.size[1]} made smaller to learn faster"


def _warnings(schema: Schema, size: tuple[int, int]) -> list[str]:
    """What becomes of images that are not as the made ones will be."""
    kinds = {1: "1, as all images are grey", 3: "3, grey images among them in copies", 4: "4, as some images may be transparent"}
    lines = [f"channels: {kinds.get(schema.channels, schema.channels)}"]
    if size[0] > schema.size[0] or size[1] > schema.size[1]:
        lines.append(f"note: images of about {schema.size[0]}x{schema.size[1]} are enlarged to {size[0]}x{size[1]}, which adds no detail")
    if not schema.uniform:
        lines.append(f"note: images differ in size: each is scaled to cover {size[0]}x{size[1]}, and its middle is taken")
    return lines


def _settings(schema: Schema, model: str, images: int) -> tuple[GenerationConfig, list[str]]:
    counts = schema.counts.get("train", ())
    labelled = len(schema.classes) > 1 and min(counts, default=0) >= ENOUGH
    reasons = []
    family = models.find(model)
    conditional = labelled and family != "vae"
    if conditional:
        reasons.append("generation.conditional: true, so that images can be asked for by class")
    elif labelled and model == "vae":
        reasons.append(
            "generation.conditional: false, so that the latents tell the classes apart; true, and images can be asked for by class"
        )
    features = "classifier" if labelled else "clusters"
    told = "a classifier of these images" if labelled else "a network that tells groups of alike images apart"
    reasons.append(f"generation.features: {features}, {told} (trained first) measures how real the made ones are")
    if model in models.DIFFUSERS:
        reasons.append("generation.perceptual: 1, and adversarial 0.1 from step 1,000 on: a judge of patches keeps reconstructions sharp")
        warmup = 500 if family == "vae" else 0
        sharp = GenerationConfig(conditional, features=features, likelihood="gaussian", kl_warmup=warmup, loss="hinge")
        return replace(sharp, r1=0.5, penalty_every=4, perceptual=1.0, adversarial=0.1, adversarial_after=1000), reasons
    if family != "gan":
        return GenerationConfig(conditional, features=features, kl_warmup=500 if family == "vae" else 0), reasons
    if model == "dcgan":
        return GenerationConfig(conditional, features=features, loss="non-saturating"), reasons
    adaptive = images < FEW
    if adaptive:
        reasons.append(f"generation.adaptive: true, as {images:,} images would be learned by heart")
    return GenerationConfig(conditional, features=features, r1=0.5, r2=0.5, penalty_every=4, adaptive=adaptive), reasons
