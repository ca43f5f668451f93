"""Adversarial losses and penalties against closed forms; that together they find every mode of a toy whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from saccade.tasks.generation.adversarial import KINDS, forge_loss, interpolated_penalty, judge_loss, zero_centred_penalty

REAL, FAKE = torch.tensor([0.3, -2.0, 90.0, -0.1]), torch.tensor([-1.0, 0.5, -90.0, 1.2])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(seed: int = 0, count: int = 5) -> Tensor:
    return torch.randn(count, 2, 3, 4, generator=torch.Generator().manual_seed(seed))


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


@pytest.mark.parametrize(
    ("kind", "judge", "forge"),
    [
        ("relativistic", lambda r, f: softplus(-(r - f)), lambda r, f: softplus(-(f - r))),
        ("non-saturating", lambda r, f: softplus(-r) + softplus(f), lambda r, f: softplus(-f)),
        ("hinge", lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda r, f: -f),
        ("wasserstein", lambda r, f: f - r, lambda r, f: -f),
    ],
)
def test_losses_by_image(kind: str, judge: object, forge: object) -> None:
    assert kind in KINDS and len(KINDS) == 4
    for function, formula in ((judge_loss, judge), (forge_loss, forge)):
        for dtype in (torch.float32, torch.bfloat16):
            real, fake = REAL.to(dtype), FAKE.to(dtype)
            expected = [formula(r, f) for r, f in zip(real.tolist(), fake.tolist(), strict=True)]  # type: ignore[operator]
            torch.testing.assert_close(function(kind, real, fake), torch.tensor(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_judge_and_forge_pull_apart(kind: str) -> None:
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    up, down = torch.autograd.grad(judge_loss(kind, real, fake).sum(), (real, fake))
    assert (up < 0).all() and (down > 0).all()
    (forged,) = torch.autograd.grad(forge_loss(kind, real, fake).sum(), fake)
    assert (forged < 0).all()


@pytest.mark.parametrize("function", [judge_loss, forge_loss])
def test_an_unknown_kind_is_refused(function: object) -> None:
    with pytest.raises(ValueError, match=r"relativistic, .*got 'least squares'"):
        function("least squares", REAL, FAKE)  # type: ignore[operator]


def test_the_penalty_of_a_linear_judge() -> None:
    weight = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    logits, penalty = zero_centred_penalty(lambda x: (x * weight).sum((1, 2, 3)), images())
    torch.testing.assert_close(logits, (images() * weight).sum((1, 2, 3)))
    torch.testing.assert_close(penalty, weight.square().sum().expand(5))
    (gradient,) = torch.autograd.grad(penalty.sum(), weight)
    torch.testing.assert_close(gradient, 5 * 2 * weight)


def test_the_penalty_of_a_quadratic_judge_and_its_gradient() -> None:
    """D(x) = x' A x / 2 with A symmetric: |A x|^2, whose derivative by A is A x x' + x x' A where both triangles are free."""
    half = torch.randn(24, 24, generator=torch.Generator().manual_seed(1))
    matrix = (half + half.T).requires_grad_()
    x = images().flatten(1)
    logits, penalty = zero_centred_penalty(lambda x: 0.5 * torch.einsum("bi,ij,bj->b", x.flatten(1), matrix, x.flatten(1)), images())
    torch.testing.assert_close(penalty, (x @ matrix).square().sum(1))
    (gradient,) = torch.autograd.grad(penalty.sum(), matrix, retain_graph=True)
    outer = x.T @ x
    torch.testing.assert_close(gradient, (matrix @ outer + outer @ matrix).detach(), rtol=1e-4, atol=1e-3)
    (through_logits,) = torch.autograd.grad(logits.sum(), matrix)
    torch.testing.assert_close(through_logits, 0.5 * outer, rtol=1e-4, atol=1e-4)


def test_images_do_not_mix_and_stay_constants() -> None:
    judge = nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Flatten(0), nn.Unflatten(0, (-1, 8)), nn.Linear(8, 1), nn.Flatten(0))
    judge[0].weight.requires_grad_(False)
    source = images().requires_grad_()
    logits, penalty = zero_centred_penalty(judge, source * 2)
    one_by_one = torch.cat([zero_centred_penalty(judge, 2 * source[i : i + 1])[1] for i in range(5)])
    torch.testing.assert_close(penalty, one_by_one)
    (logits.sum() + penalty.sum()).backward()
    assert source.grad is None and judge[0].weight.grad is None
    assert judge[4].weight.grad is not None and judge[0].bias.grad.abs().sum() > 0


@pytest.mark.parametrize("penalty", ["zero-centred", "interpolated"])
def test_float32_under_autocast(penalty: str) -> None:
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))

    def run(of: Tensor) -> Tensor:
        if penalty == "zero-centred":
            return zero_centred_penalty(judge, of)[1]
        return interpolated_penalty(judge, of, of.flip(0), torch.full((5,), 0.25))

    plain = run(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert judge(images()).dtype == torch.bfloat16
        assert torch.equal(run(images()), plain) and plain.dtype == torch.float32
        assert run(images().bfloat16()).dtype == torch.float32


def test_the_interpolated_penalty() -> None:
    weight = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    share = torch.tensor([0.0, 1.0, 0.5, 0.2, 0.9])
    penalty = interpolated_penalty(lambda x: (x * weight).sum((1, 2, 3)), images(), images(1), share)
    torch.testing.assert_close(penalty, (weight.norm() - 1).square().expand(5))
    (gradient,) = torch.autograd.grad(penalty.sum(), weight)
    torch.testing.assert_close(gradient, (5 * 2 * (1 - 1 / weight.norm()) * weight).detach())
    bent = interpolated_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), images(), images(1), share)
    between = torch.stack([s * r + (1 - s) * f for s, r, f in zip(share, images(), images(1), strict=True)])
    torch.testing.assert_close(bent, (between.flatten(1).norm(dim=1) - 1).square())


def test_a_flat_judge_gets_finite_gradients() -> None:
    weight = torch.zeros(2, 3, 4, requires_grad=True)
    penalty = interpolated_penalty(lambda x: (x * weight).sum((1, 2, 3)), images(), images(1), torch.full((5,), 0.5))
    assert penalty.tolist() == [1.0] * 5
    assert torch.autograd.grad(penalty.sum(), weight)[0].isfinite().all()


class Waves(nn.Module):
    """Random Fourier features (Rahimi & Recht 2007) of points `[B,2]`: small networks learn fine detail from them, and soon."""

    waves: Tensor

    def __init__(self, waves: Tensor) -> None:
        super().__init__()
        self.register_buffer("waves", waves)

    def forward(self, x: Tensor) -> Tensor:
        phases = x @ self.waves
        return torch.cat([phases.sin(), phases.cos()], 1)


class Toy:
    """25 Gaussians on a grid of spacing 2 with a standard deviation of 0.05 (Lin et al. 2018, "PacGAN"), all halved.

    The penalty is strong at first, for the mass of each mode, and weaker in the end (as in Huang et al. 2024); weights are averaged.
    """

    steps, batch, spread = 1500, 256, 0.025
    centres = torch.tensor(list(product((-2.0, -1.0, 0.0, 1.0, 2.0), repeat=2)))

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        judge_waves = torch.logspace(0, math.log10(12), 64) * torch.randn(2, 64, generator=self.generator)
        body = nn.Linear(128, 96), nn.SiLU(), nn.Linear(96, 1), nn.Flatten(0)
        self.judge = nn.Sequential(Waves(judge_waves), *body)
        forge_waves = 8 * torch.randn(2, 128, generator=self.generator)
        body = nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
        self.forge = nn.Sequential(Waves(forge_waves), *body)
        self.average = [p.detach().clone() for p in self.forge.parameters()]
        self.judges = torch.optim.Adam(self.judge.parameters(), lr=0.01, betas=(0.0, 0.99), fused=True)
        self.forges = torch.optim.Adam(self.forge.parameters(), lr=0.003, betas=(0.0, 0.99), fused=True)

    def real(self) -> Tensor:
        mode = torch.randperm(self.batch, generator=self.generator) % 25
        return self.centres[mode] + self.spread * torch.randn(self.batch, 2, generator=self.generator)

    def fake(self, side: int) -> Tensor:
        """Of one latent in each cell of a grid, `side` by side: less noise than without."""
        cells = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        return self.forge((cells + torch.rand(side * side, 2, generator=self.generator)) * (2 / side) - 1)

    def train(self) -> None:
        for step in range(self.steps):
            done = step / self.steps
            self.judges.param_groups[0]["lr"], self.forges.param_groups[0]["lr"] = (lr * min(1, 2 - 2 * done) for lr in (0.01, 0.003))
            self._step(gamma=0.1 * 0.2**done)
            torch._foreach_lerp_(self.average, [p.detach() for p in self.forge.parameters()], 0.01)
        with torch.no_grad():
            for parameter, average in zip(self.forge.parameters(), self.average, strict=True):
                parameter.copy_(average)

    def _step(self, gamma: float) -> None:
        fakes = self.fake(16)
        self.judge.requires_grad_(True)
        logits, penalty = zero_centred_penalty(self.judge, torch.cat([self.real(), fakes]))  # R1 and R2 in one pass
        real, fake = logits.chunk(2)
        self.judges.zero_grad()
        (judge_loss("relativistic", real, fake) + 0.5 * gamma * sum(penalty.chunk(2))).mean().backward()
        self.judges.step()
        self.judge.requires_grad_(False)
        self.forges.zero_grad()
        forge_loss("relativistic", real.detach(), self.judge(fakes)).mean().backward()
        self.forges.step()


@pytest.mark.long
def test_all_25_modes_are_found() -> None:
    """At least 1 % of 2,500 samples lie within 4 standard deviations of each centre, as the truth would have 4 %."""
    toy = Toy(seed=5)
    toy.train()
    with torch.no_grad():
        distances, nearest = torch.cdist(toy.fake(50), toy.centres).min(1)
    found = torch.bincount(nearest[distances < 4 * toy.spread], minlength=25)
    assert found.min() >= 25, found.tolist()
