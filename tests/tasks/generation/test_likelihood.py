"""Likelihoods sum to one, at any parameters, and bounds reach what closed forms say."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

from saccade.tasks.generation import likelihood

ALL = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)  # one image of one pixel for each value


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are tiny: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(count: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means, log scales and logits, far beyond what is sensible too."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(count, *shape, generator=generator) * torch.logspace(-2, 1.5, count).view(-1, *(1,) * len(shape))
    log_scales = torch.rand(count, *shape, generator=generator) * 20 - 10
    return means, log_scales, 5 * torch.randn(count, *shape, generator=generator)


def total(nats: Tensor) -> Tensor:
    """log of the sum over all 256 values."""
    return torch.logsumexp(nats.view(-1, 256), 1)


@pytest.mark.parametrize("components", [1, 3, 10])
def test_a_mixture_sums_to_one(components: int) -> None:
    means, log_scales, logits = (p.repeat_interleave(256, 0) for p in parameters(200, components, 1, 1, 1))
    nats = likelihood.discretized_logistic_mixture(ALL.repeat(200, 1, 1, 1), means, log_scales, logits)
    torch.testing.assert_close(total(nats), torch.zeros(200), atol=1e-5, rtol=0)


def test_a_gaussian_sums_to_one() -> None:
    means, log_scales, _ = (p.repeat_interleave(256, 0) for p in parameters(500, 1, 1, 1))
    nats = likelihood.discretized_gaussian(ALL.repeat(500, 1, 1, 1), means, log_scales)
    torch.testing.assert_close(total(nats), torch.zeros(500), atol=1e-5, rtol=0)


@pytest.mark.parametrize("log_scale", [-7.0, -5.0, -4.5, -4.0, -3.0, -1.0, 2.0, 7.0])
@pytest.mark.parametrize("mean", [-1.0, -0.303, 0.001, 0.998, 1.7])
def test_each_probability_is_that_of_float64(mean: float, log_scale: float) -> None:
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
    z = (edges - np.float32(mean)) / np.exp(log_scale)
    slow = {"logistic": special.log_expit, "normal": special.log_ndtr}
    means, log_scales = torch.full((256, 1, 1, 1), mean), torch.full((256, 1, 1, 1), log_scale)
    got = {
        "logistic": likelihood.discretized_logistic_mixture(ALL, means[:, None], log_scales[:, None], torch.zeros(256, 1, 1, 1, 1)),
        "normal": likelihood.discretized_gaussian(ALL, means, log_scales),
    }
    for name, log_cdf in slow.items():
        left = z[1:] + z[:-1] < 0  # by symmetry: the difference is taken where both are small
        high, low = log_cdf(np.where(left, z[1:], -z[:-1])), log_cdf(np.where(left, z[:-1], -z[1:]))
        expected = high + np.log(-np.expm1(low - high))
        np.testing.assert_allclose(got[name].numpy(), expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_images_sum_over_pixels_and_channels() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (2, 3, 5, 4), generator=generator, dtype=torch.uint8)
    means, log_scales, logits = (torch.randn(2, 4, 3, 5, 4, generator=generator) for _ in range(3))
    whole = likelihood.discretized_logistic_mixture(images, means, log_scales, logits)
    one = torch.zeros(2)
    for c, y, x in np.ndindex(3, 5, 4):
        pixel = (slice(None), slice(None), slice(c, c + 1), slice(y, y + 1), slice(x, x + 1))
        values = images[:, c : c + 1, y : y + 1, x : x + 1]
        one += likelihood.discretized_logistic_mixture(values, means[pixel], log_scales[pixel], logits[pixel])
    torch.testing.assert_close(whole, one)
    shared = likelihood.discretized_gaussian(images, means[:, 0], torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(shared, likelihood.discretized_gaussian(images, means[:, 0], torch.zeros(2, 3, 5, 4)))


def test_gradients_are_finite_everywhere() -> None:
    """Also where a branch that is not taken has none: at the edges, far tails, and clamped scales."""
    leaves = [p.repeat_interleave(256, 0).requires_grad_() for p in parameters(50, 2, 1, 1, 1)]
    images = ALL.repeat(50, 1, 1, 1)
    mixture = likelihood.discretized_logistic_mixture(images, *leaves).sum()
    gaussian = likelihood.discretized_gaussian(images, leaves[0][:, 0], leaves[1][:, 0]).sum()
    for loss, of in ((mixture, leaves), (gaussian, leaves[:2])):
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, of))


@pytest.mark.parametrize(("beyond", "end"), [(-7.5, -7.0), (-1e4, -7.0), (7.5, 7.0), (1e4, 7.0)])
def test_log_scales_end_somewhere(beyond: float, end: float) -> None:
    """A network that is sure of itself, or has not learned yet, gets finite numbers and slopes."""
    mean = torch.linspace(-3, 3, 256).view(256, 1, 1, 1).requires_grad_()
    zero = torch.zeros(256, 1, 1, 1, 1)
    for function in (
        likelihood.discretized_gaussian,
        lambda i, m, s: likelihood.discretized_logistic_mixture(i, m[:, None], s[:, None], zero),
    ):
        there, here = (function(ALL, mean, torch.full((256, 1, 1, 1), scale)) for scale in (beyond, end))
        assert torch.equal(there, here)
        assert torch.autograd.grad(there.sum(), mean)[0].isfinite().all()


@pytest.mark.parametrize("log_scale", [-6.0, -4.5, -2.0, 3.0])
def test_gradients_are_those_of_differences(log_scale: float) -> None:
    """Both formulas of the normal's bin, and the logistic's."""
    values, step = ALL[[0, 3, 90, 128, 131, 255]], 2e-3
    for function in (
        likelihood.discretized_gaussian,
        lambda i, m, s: likelihood.discretized_logistic_mixture(i, m[:, None], s[:, None], torch.zeros(1, 1, 1, 1, 1)),
    ):
        leaves = [torch.full((6, 1, 1, 1), 0.02, requires_grad=True), torch.full((6, 1, 1, 1), log_scale, requires_grad=True)]
        gradients = torch.autograd.grad(function(values, *leaves).sum(), leaves)
        for index, by in enumerate((step * math.exp(log_scale), step)):
            up, down = ([leaf.detach() + sign * by * (index == i) for i, leaf in enumerate(leaves)] for sign in (1, -1))
            slope = (function(values, *up) - function(values, *down)) / (2 * by)
            torch.testing.assert_close(gradients[index].flatten(), slope, rtol=1e-2, atol=5e-4 / by)


def test_a_uniform_decoder_costs_eight_bits() -> None:
    dimensions = 3 * 17 * 11
    nats = torch.full((2,), -dimensions * math.log(256))
    assert likelihood.bits_per_dim(nats, dimensions).tolist() == pytest.approx([8.0, 8.0], abs=1e-6)


def test_a_mixture_of_256_equal_bins_costs_eight_bits() -> None:
    """A component on each value, as narrow as they get: what leaks out of a bin its neighbours leak in."""
    images = torch.randint(256, (2, 3, 17, 11), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    means = (ALL.float() / 127.5 - 1).view(1, 256, 1, 1, 1).expand(2, -1, 3, 17, 11)
    nats = likelihood.discretized_logistic_mixture(images, means, torch.full_like(means, -9.0), torch.zeros_like(means))
    assert likelihood.bits_per_dim(nats, images[0].numel()).tolist() == pytest.approx([8.0, 8.0], abs=1e-4)


def test_bernoulli_sums_to_one_over_binary_pixels() -> None:
    logits = torch.tensor([-30.0, -2.0, 0.0, 0.7, 40.0]).view(5, 1, 1, 1)
    black, white = (likelihood.bernoulli(torch.full((5, 1, 1, 1), v, dtype=torch.uint8), logits) for v in (0, 255))
    torch.testing.assert_close(torch.logaddexp(black, white), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(white, torch.nn.functional.logsigmoid(logits).flatten())
    torch.testing.assert_close(likelihood.bernoulli(torch.full((5, 1, 1, 1), 51.0), logits), 0.2 * white + 0.8 * black)


def test_kl_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(5, 7, generator=generator), 3 * torch.randn(5, 7, generator=generator)
    mine = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    theirs = torch.distributions.kl_divergence(mine, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(likelihood.kl_to_standard(mean, log_variance), theirs)
    assert likelihood.kl_to_standard(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)).shape == (2, 48)


def test_free_bits() -> None:
    kl = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)).mul(torch.linspace(0, 1, 9)).requires_grad_()
    free = likelihood.free_bits(kl, 0.3)
    assert free.shape == (6,)
    torch.testing.assert_close(free.sum(), 6 * kl.mean(0).clamp(min=0.3).sum())
    (gradient,) = torch.autograd.grad(free.sum(), kl)
    assert torch.equal(gradient, (kl.mean(0) > 0.3).float().expand(6, 9))
    torch.testing.assert_close(likelihood.free_bits(kl, 0.0), kl.sum(1))


def test_importance_bound() -> None:
    weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(likelihood.importance_bound(weights), weights.exp().mean(0).log())
    torch.testing.assert_close(likelihood.importance_bound(torch.full((4, 2), -5000.0)), torch.full((2,), -5000.0))
    assert (likelihood.importance_bound(weights) >= weights.mean(0)).all()


def test_the_importance_bound_tightens() -> None:
    """x | z ~ N(z, 1), z ~ N(0, 1), q a little too wide: log p(x) = log N(x; 0, 2) is reached from below."""
    generator = torch.Generator().manual_seed(0)
    x, normal = torch.tensor([0.5, -1.5]), torch.distributions.Normal
    posterior = normal(x / 2, torch.tensor(0.9))
    z = x / 2 + 0.9 * torch.randn(20_000, 2, generator=generator)
    log_weights = normal(z, 1.0).log_prob(x) + normal(0.0, 1.0).log_prob(z) - posterior.log_prob(z)
    truth = normal(0.0, math.sqrt(2)).log_prob(x)
    elbo, five, all_of_them = (likelihood.importance_bound(log_weights.view(k, -1, 2)).mean(0) for k in (1, 5, 20_000))
    assert (elbo < five).all() and (five < truth).all()
    torch.testing.assert_close(all_of_them, truth, atol=0.01, rtol=0)


def test_a_linear_vae_is_probabilistic_pca() -> None:
    """Its bound comes within 1 % of the maximum likelihood of Tipping & Bishop 1999, eq. 4, 7 and 8: six dimensions, two latents."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(500, 2, generator=generator) @ torch.randn(2, 6, generator=generator) * 1.5
    data += 0.4 * torch.randn(500, 6, generator=generator)
    data -= data.mean(0)
    values = torch.linalg.eigvalsh(data.T @ data / len(data)).flip(0)
    noise = values[2:].mean()
    optimum = -0.5 * (6 * math.log(2 * math.pi) + values[:2].log().sum() + 4 * noise.log() + 6)

    encoder, decoder = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
    log_variance, log_scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))
    with torch.no_grad():
        for layer in (encoder, decoder):
            layer.weight.copy_(0.3 * torch.randn(layer.weight.shape, generator=generator))
    parameters = [encoder.weight, decoder.weight, log_variance, log_scale]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    bounds = []
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 600)
        mean = encoder(data)
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
        given = torch.distributions.Normal(decoder(z), log_scale.exp()).log_prob(data).sum(1)
        bound = (given - likelihood.kl_to_standard(mean, log_variance.expand_as(mean)).sum(1)).mean()
        optimizer.zero_grad()
        (-bound).backward()
        optimizer.step()
        bounds.append(bound.item())
    assert np.mean(bounds[-50:]) == pytest.approx(optimum.item(), rel=0.01)
    assert bounds[0] < 1.3 * optimum.item()  # it had some way to go
