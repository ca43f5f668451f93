"""LPIPS: how different two images look, by the layers of a network that was trained on photos, as its authors weigh them.

Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", eq. 1, version 0.1 of their linear weights. Of
two sets of figures only those of the same network compare: AlexNet, which agrees best with people, or VGG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.nn import checkpoints, fetching, pretrained, weights
from saccade.nn.checkpoints import Place
from saccade.nn.fetching import Published

AT = "https://github.com/richzhang/PerceptualSimilarity/raw/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1"
AT_ONCE = 16  # pairs of images
TINY = 1e-10  # beside a length that is divided by
# What is subtracted from values in -1..1, and what they are divided by: ImageNet's mean and deviation in that range, rounded.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Kind:
    """A network of torchvision: its name there, the layers that are compared (places in its `features`, with their channels), the linear
    weights for them, and the fewest pixels a side that reach the last."""

    network: str
    layers: tuple[int, ...]
    channels: tuple[int, ...]
    linear: Published
    least: int


KINDS = {
    "alex": Kind(
        "alexnet",
        (1, 4, 7, 9, 11),
        (64, 192, 384, 256, 256),
        Published(
            "lpips-v0.1-alex.pth", f"{AT}/alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", "bsd-2-clause"
        ),
        31,
    ),
    "vgg": Kind(
        "vgg16",
        (3, 8, 15, 22, 29),
        (64, 128, 256, 512, 512),
        Published(
            "lpips-v0.1-vgg.pth", f"{AT}/vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", "bsd-2-clause"
        ),
        16,
    ),
}


class Lpips(nn.Module):
    """Pairs of images uint8 `[B, 3, H, W]`, RGB, -> float32 `[B]`: 0 where they are equal; more is more different. Its layers hold nothing
    yet: see `trained`."""

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: Kind) -> None:
        from torchvision import models

        super().__init__()
        self.kind = kind
        with torch.device("meta"):  # its classifier, of some hundred megabytes, is not needed
            whole = models.get_model(kind.network, weights=None)
        self.network = whole.features[: kind.layers[-1] + 1].to_empty(device="cpu")
        self.linear = nn.ParameterList(nn.Parameter(torch.zeros(1, count, 1, 1)) for count in kind.channels)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """See the class."""
        total = torch.zeros(len(images), device=images.device)
        for here, there, weight in zip(self._layers(images), self._layers(others), self.linear, strict=True):
            total = total + ((here - there).square() * weight).sum(1).mean((1, 2))
        return total

    def _layers(self, images: Tensor) -> Sequence[Tensor]:
        """The compared maps `[B, C, h, w]`, each place's numbers divided by their length."""
        found, maps = [], (images.float() / 127.5 - 1 - self.shift) / self.scale
        for place, layer in enumerate(self.network):
            maps = layer(maps)
            if place in self.kind.layers:
                found.append(maps / (maps.square().sum(1, keepdim=True).sqrt() + TINY))
        return found


def trained(name: str, size: tuple[int, int], *, where: str) -> Lpips:
    """The network `name` (one of `KINDS`) with its published weights, for images of `size` (height, width). Raises UserError where they are
    too small for it, or where its weights cannot be had."""
    kind = KINDS[name]
    if min(size) < kind.least:
        others = [other for other, one in KINDS.items() if min(size) >= one.least]
        problem = f"images must have {kind.least} pixels a side at least for {name}, have {size[0]}x{size[1]}"
        raise UserError(problem, where=where, fix=f"take {where} {others[0]}" if others else "leave it out")
    network = Lpips(kind)
    of_photos = pretrained.published(pretrained.torchvisions(f"{pretrained.TORCHVISION}{kind.network}.IMAGENET1K_V1"))
    file = fetching.fetch(of_photos, f"the weights of {kind.network}, which LPIPS ({name}) looks with", where=where)
    checkpoints.take(network.network, checkpoints.read(file), Place(), (), least=1.0)
    linear = fetching.tensors(kind.linear, f"the linear weights of LPIPS ({name})", where=where)
    named = {number: linear.get(f"lin{number}.model.1.weight") for number in range(len(kind.layers))}
    weights.load_into(network.linear, {str(number): one for number, one in named.items() if one is not None}, where=str(kind.linear.place))
    return network.eval()
