"""Losses of adversarial training and the gradient penalties that make it converge, one number for each image.

The judge (discriminator, D) gives one logit an image, the forge (generator, G) makes fakes. Nothing here draws random numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Judge = Callable[[Tensor], Tensor]
_Loss = Callable[[Tensor, Tensor], Tensor]

# name -> (the judge's loss, the forge's loss), both of (real, fake)
_LOSSES: dict[str, tuple[_Loss, _Loss]] = {
    # Jolicoeur-Martineau 2018 with f = softplus, as in Huang et al. 2024, "The GAN is dead; long live the GAN!", eq. 2
    "relativistic": (lambda real, fake: F.softplus(fake - real), lambda real, fake: F.softplus(real - fake)),
    # Goodfellow et al. 2014, eq. 1, with the forge's loss of section 3
    "non-saturating": (lambda real, fake: F.softplus(-real) + F.softplus(fake), lambda real, fake: F.softplus(-fake)),
    # Lim & Ye 2017, "Geometric GAN"
    "hinge": (lambda real, fake: F.relu(1 - real) + F.relu(1 + fake), lambda real, fake: -fake),
    # Arjovsky et al. 2017, eq. 2 and 3; the judge needs `interpolated_penalty` or it is not Lipschitz
    "wasserstein": (lambda real, fake: fake - real, lambda real, fake: -fake),
}
KINDS = tuple(_LOSSES)


def judge_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """The judge's loss by image, float32 `[B]`; real, fake: its logits `[B]`, of which "relativistic" pairs those of one row.

    Raises ValueError where `kind` is not among KINDS.
    """
    return _losses(kind)[0](real.float(), fake.float())


def forge_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """The forge's loss by image, float32 `[B]`; real, fake: the judge's logits `[B]`; only "relativistic" looks at the real ones.

    Raises ValueError where `kind` is not among KINDS.
    """
    return _losses(kind)[1](real.float(), fake.float())


def zero_centred_penalty(judge: Judge, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B]` and |grad_x D(x)|^2 `[B]` at `images` `[B,C,H,W]`, both float32 and from one forward pass.

    R1 at real images, R2 at fakes (Mescheder et al. 2018, eq. 9 and 10, without gamma / 2). The judge's parameters get gradients through
    both; the images are taken as constants, so fakes send none to the forge. Runs in float32 even under autocast: squared slopes
    overflow half precision. The judge must treat images apart (no batch normalisation), or the slope is not that of one image.
    """
    logits, slopes = _slopes(judge, images)
    return logits, slopes.square().sum(1)


def interpolated_penalty(judge: Judge, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """(|grad D(x)| - 1)^2 `[B]` at x = share * real + (1 - share) * fake (Gulrajani et al. 2017, eq. 3, without lambda).

    real, fake: `[B,C,H,W]`, constants as in `zero_centred_penalty`; share: `[B]` in 0..1, drawn by the caller. Float32.
    """
    share = share.float().view(-1, *(1,) * (real.ndim - 1))
    _, slopes = _slopes(judge, share * real.float() + (1 - share) * fake.float())
    return (torch.linalg.vector_norm(slopes, dim=1) - 1).square()  # unlike sqrt, its derivative at 0 is 0


def _losses(kind: str) -> tuple[_Loss, _Loss]:
    if kind not in _LOSSES:
        raise ValueError(f"the adversarial loss must be one of {', '.join(KINDS)}, got {kind!r}")
    return _LOSSES[kind]


def _slopes(judge: Judge, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B]` and the gradient of each by its own image, `[B, C * H * W]`, itself differentiable; float32."""
    images = images.detach().float().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        logits = judge(images).float()
        (slopes,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return logits, slopes.flatten(1)
