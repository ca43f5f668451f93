"""The features that published Frechet and kernel distances are measured on: Inception v3 as TensorFlow's file of 2015-12-05 has it.

Heusel et al. 2017 (section 4) take what the network gives before its classifier, 2,048 numbers an image. That network differs from
torchvision's of the same name: means of neighbours leave out what lies beyond the edge, the last block takes their maximum, it was trained
to tell 1,008 classes apart, and images are enlarged as TensorFlow 1 did it. The weights are those of its file, as PyTorch names them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception as blocks

from saccade.core.errors import UserError
from saccade.nn import fetching, weights
from saccade.nn.fetching import Published

WEIGHTS = Published(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "apache-2.0",
)
SIDE = 299
AT_ONCE = 16  # images: the first maps of each take 5.5 MB
CLASSIFIER = "fc."  # what is left out of the file


def _mean(maps: Tensor) -> Tensor:
    """Of the neighbours 3x3 that there are."""
    return F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)


def _largest(maps: Tensor) -> Tensor:
    return F.max_pool2d(maps, 3, 1, 1)


class _Pooling:
    """A block of torchvision's whose last branch pools in its own way; what torchvision's gives there is thrown away (a twentieth of the
    work)."""

    pool = staticmethod(_mean)

    def _forward(self: Any, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(self.pool(x))]  # type: ignore[misc]


class _A(_Pooling, blocks.InceptionA): ...


class _C(_Pooling, blocks.InceptionC): ...


class _E(_Pooling, blocks.InceptionE): ...


class _Last(_Pooling, blocks.InceptionE):
    pool = staticmethod(_largest)


class Inception(nn.Module):
    """Images uint8 `[B, 3, H, W]`, RGB, of any size -> float32 `[B, 2048, 64]`: the last maps, 8x8 places, whose mean are the features."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = blocks.Inception3(num_classes=1, aux_logits=False, transform_input=False, init_weights=False)
        network.Mixed_5b, network.Mixed_5c, network.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        network.Mixed_6b, network.Mixed_6c, network.Mixed_6d, network.Mixed_6e = (_C(768, inner) for inner in (128, 160, 160, 192))
        network.Mixed_7b, network.Mixed_7c = _E(1280), _Last(2048)
        network.avgpool = network.dropout = network.fc = nn.Identity()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        seen = resized(images.float()).sub(128).div(128)
        maps: Tensor = self.network(seen)
        return maps.reshape(len(maps), 2048, -1)


def resized(images: Tensor, side: int = SIDE) -> Tensor:
    """Float `[B, C, H, W]` -> `[B, C, side, side]`: pixel i is taken at i * (old size / new size) between its two neighbours, as TensorFlow
    1's `resize_bilinear` does (pixels' corners, not their middles, stay in place). Other ways change published figures."""
    for axis in (3, 2):
        count = images.shape[axis]
        at = torch.arange(side, dtype=torch.float32, device=images.device) * (count / side)
        low = at.long()
        high = (low + 1).clamp(max=count - 1)
        share = (at - low).view(-1, *[1] * (3 - axis))
        left = images.index_select(axis, low)
        images = left + (images.index_select(axis, high) - left) * share
    return images


def pretrained(*, where: str) -> Inception:
    """The network with its published weights. Raises UserError where they cannot be had or are others."""
    what = "the weights of the Inception network that FID is measured on"
    found = fetching.tensors(WEIGHTS, what, where=where)
    network = Inception()
    report = weights.load_matching(network.network, {name: buffer for name, buffer in found.items() if not name.startswith(CLASSIFIER)})
    missing = [name for name in report.missing if not name.endswith("num_batches_tracked")]
    if missing or report.other or report.unexpected:
        raise UserError(f"its weights are not those of this network: {report}", where=str(WEIGHTS.place), fix=f"remove {WEIGHTS.place}")
    return network.eval()
