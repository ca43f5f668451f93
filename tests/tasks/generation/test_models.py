"""The networks of the room: sizes that do not halve, what is masked, codes that follow, bounds that are bounds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.core.card import Card, InputSpec
from saccade.core.config import GenerationConfig, TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Schema
from saccade.tasks.generation import models
from saccade.tasks.generation.models import vqvae
from saccade.tasks.generation.models.base import to_float
from saccade.tasks.generation.models.blocks import cut, padded
from saccade.tasks.generation.models.gan import Gan
from saccade.tasks.generation.task import Generation

SIZES = [(8, 8), (17, 11), (32, 32), (48, 80)]


def made(model: str, size: tuple[int, int] = (16, 12), channels: int = 1, **settings: Any) -> Any:
    config = TrainConfig(task="generate", model=model, size=size, channels=channels, generation=GenerationConfig(**settings))  # type: ignore[arg-type]
    torch.manual_seed(0)
    network, _ = Generation().create(config, Schema("generate", ("a", "b"), {"train": (30, 10)}, channels, size, True))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", models.FAMILIES)
def test_any_size_and_channels(model: str, size: tuple[int, int], channels: int) -> None:
    network = made(model, size, channels)
    with torch.no_grad():
        images = network.make(torch.randn(2, network.latent), None)
    assert images.shape == (2, channels, *size) and images.isfinite().all()
    pixels = torch.randint(0, 256, (2, channels, *size), dtype=torch.uint8)
    if isinstance(network, Gan):
        assert network.judge(pixels.float() / 127.5 - 1, None).shape == (2,)
    else:
        nats, again = network.bound(pixels, None, torch.randn(2, network.latent))
        assert nats.shape == (2,) and again.shape == pixels.shape and nats.isfinite().all()


def test_the_table_tells_the_parameters() -> None:
    for row in models.rows():
        assert sum(p.numel() for p in made(row.name, (32, 32)).parameters()) == row.parameters, row.name


def test_frequencies_and_labels() -> None:
    network = made("r3gan", conditional=True)
    assert network.frequencies.tolist() == [0.75, 0.25]
    latents = torch.randn(2, network.latent)
    with torch.no_grad():
        one, other = (network.make(latents, torch.tensor([label, 0])) for label in (0, 1))
    assert not torch.equal(one[0], other[0]) and torch.allclose(one[1], other[1], atol=1e-5)


def test_the_judge_sees_the_last_row() -> None:
    """Padding repeats edges, so that every pixel of a size that does not halve counts."""
    network = made("r3gan", (17, 11))
    images = torch.zeros(1, 1, 17, 11, requires_grad=True)
    (slope,) = torch.autograd.grad(network.judge(images, None).sum(), images)
    assert (slope != 0).all()


def test_the_prior_sees_only_what_comes_before() -> None:
    network = made("vqvae", (16, 20))
    codes = torch.randint(0, 256, (1, *network.grid))
    with torch.no_grad():
        before = network.prior(codes, None)
        for row, column in ((0, 0), (1, 3), (3, 4)):
            changed = codes.clone()
            changed[0, row, column] = (changed[0, row, column] + 7) % 256
            differs = (network.prior(changed, None) != before).any(1)[0]
            earlier = torch.arange(codes.numel()).view(network.grid) <= row * network.grid[1] + column
            assert not differs[earlier].any()
            assert differs[~earlier].any() or earlier.all()


@pytest.mark.parametrize("conditional", [False, True])
def test_code_by_code_is_as_the_whole(conditional: bool) -> None:
    network = made("vqvae", (16, 20), conditional=conditional)
    prior, codes = network.prior, torch.randint(0, 256, (3, *network.grid))
    labels = torch.tensor([0, 1, 1]) if conditional else None
    with torch.no_grad():
        whole, seen = prior(codes, labels), prior.begin(3)
        for row in range(network.grid[0]):
            for column in range(network.grid[1]):
                torch.testing.assert_close(prior.at(seen, row, column, labels), whole[:, :, row, column], atol=1e-4, rtol=1e-4)
                prior.tell(seen, row, column, codes[:, row, column])


def test_latents_of_codes_give_the_codes_again() -> None:
    network = made("vqvae", (16, 12))
    pixels = torch.randint(0, 256, (3, 1, 16, 12), dtype=torch.uint8)
    with torch.no_grad():
        latents, _ = network.encode(pixels, None)
        again = network.make(latents, None)
        _, reconstruction = network.bound(pixels, None, latents)
    torch.testing.assert_close(again, reconstruction, atol=1e-4, rtol=1e-4)


def test_codes_follow_what_is_quantised_and_dead_ones_move() -> None:
    torch.manual_seed(0)
    book = vqvae.Codebook(8, vqvae.CODE)
    centres = torch.randn(4, vqvae.CODE) * 3
    generator = torch.Generator().manual_seed(0)
    for step in range(600):
        torch.manual_seed(step)
        x = centres[torch.randint(4, (64,), generator=generator)] + 0.01 * torch.randn(64, vqvae.CODE, generator=generator)
        book.follow(x, book.nearest(x))
    distances = torch.cdist(centres, book.weight).min(1).values
    assert distances.max() < 0.5, "each centre has a code"


@pytest.mark.parametrize("likelihood", ["logistic", "gaussian", "bernoulli"])
def test_the_weighted_bound_is_tighter(likelihood: str) -> None:
    network = made("vae", likelihood=likelihood, latent=3)
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 16, 12), dtype=np.uint8)
    noise = np.random.default_rng(1).standard_normal((40, 6, 3)).astype(np.float32)
    taken = Generation().take(network, images, None, noise)
    assert taken.weighted is not None and (taken.weighted > taken.nats - 5).all()
    assert taken.weighted.mean() > taken.nats.mean()
    assert taken.reconstructions.shape == (6, 16, 12, 1)


@pytest.mark.parametrize("model", models.DIFFUSERS)
def test_diffusers_reads_what_it_has_lent(model: str, tmp_path: Path) -> None:
    """`network` is its own class: written and read by its own methods it gives the same images."""
    network = made(model, (17, 11))
    network.network.save_pretrained(tmp_path)
    again = type(network.network).from_pretrained(tmp_path)
    pixels = torch.randint(0, 256, (3, 1, 17, 11), dtype=torch.uint8)
    x = padded(to_float(pixels), network.fitted)
    with torch.no_grad():
        _, expected = network.bound(pixels, None, torch.zeros(3, network.latent))
        found = again.decode(again.encode(x).latents if model == "vq_model" else again.encode(x).latent_dist.mean).sample
    torch.testing.assert_close(cut(found, (17, 11)).clamp(-1, 1), expected, atol=1e-4, rtol=1e-4)


def test_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before a single image is read; the library is not loaded for it."""
    config = TrainConfig(task="generate", model="vq_model", size=(16, 16))
    Generation().check(config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"saccade\[diffusers\]"):
        Generation().check(config)
    with pytest.raises(UserError, match="not installed"):
        made("autoencoder_kl")


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("vae", {"perceptual": 1.0}, "perceptual belongs to autoencoder_kl and vq_model"),
        ("vae", {"r1": 1.0}, "r1 belongs to r3gan and dcgan and autoencoder_kl and vq_model"),
        ("r3gan", {"beta": 2.0}, "beta belongs to vae and autoencoder_kl"),
        ("r3gan", {"gradient_penalty": 2.0}, "belongs to loss wasserstein"),
        ("autoencoder_kl", {"likelihood": "logistic"}, "has likelihood gaussian"),
        ("autoencoder_kl", {"conditional": True}, "conditional belongs to"),
        ("autoencoder_kl", {"loss": "wasserstein"}, "this judge has not"),
        ("vq_model", {"latent": 4}, "latent belongs to r3gan and dcgan and vae"),
        ("vqvae", {"latent": 4}, "latent belongs to"),
    ],
)
def test_settings_of_another_family(model: str, settings: dict[str, Any], message: str) -> None:
    config = TrainConfig(task="generate", model=model, size=(16, 16), generation=GenerationConfig(**settings))
    with pytest.raises(UserError, match=message):
        Generation().check(config)


def test_cards_from_elsewhere() -> None:
    card = Card("generate", (), {"source": "saccade", "name": "vae"}, InputSpec(1, (16, 16)))
    good = {"shape": [1, 16, 16], "classes": 0, "widths": [16, 8], "blocks": 1, "latent": 4, "likelihood": "logistic"}
    for changes in (
        {"widths": [10**9]},
        {"widths": "ab"},
        {"shape": [3, 16, 16]},
        {"classes": 7},
        {"latent": -1},
        {"blocks": True},
        {"likelihood": "no"},
        {"what": 1},
    ):
        wrong = Card("generate", (), {**card.architecture, "arguments": {**good, **changes}}, card.input)
        with pytest.raises(UserError, match="not an architecture of ours"):
            models.build(wrong)
    kl = {"shape": [1, 16, 16], "classes": 0, "widths": [16, 8], "blocks": 1, "channels": 4}
    for changes in ({"channels": 0}, {"channels": 10**9}, {"widths": [8]}, {"latent": 4}):
        wrong = Card("generate", (), {"source": "diffusers", "name": "autoencoder_kl", "arguments": {**kl, **changes}}, card.input)
        with pytest.raises(UserError, match="not an architecture of ours"):
            models.build(wrong)
    with pytest.raises(UserError, match="the file holds"):
        models.build(Card("generate", (), {**card.architecture, "arguments": good}, card.input), 10)
