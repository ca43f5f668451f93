"""A feature pyramid on any network of timm or torchvision that gives maps, for torchvision's heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.core.errors import UserError
from saccade.nn.backbones import TORCHVISION

WIDTH = 256  # channels of a pyramid, as in torchvision's own
# Of the maps that a head's pyramid stands on.
STRIDES = {"fasterrcnn": (4, 8, 16, 32), "maskrcnn": (4, 8, 16, 32), "fcos": (8, 16, 32), "retinanet": (8, 16, 32)}
SIDE = 256  # pixels of the image on which a network of torchvision shows the sizes of its maps


class Pyramid(nn.Module):
    """Maps of a network, `name` of timm or `torchvision/name`, at the strides of a head, made one width (Lin et al. 2017)."""

    def __init__(self, name: str, head: str) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

        try:
            made = _of_torchvision if name.startswith(TORCHVISION) else _of_timm
            self.body, channels = made(name.removeprefix(TORCHVISION), STRIDES[head])
        except Exception as error:  # their constructors raise anything
            strides = ", ".join(map(str, STRIDES[head]))
            raise UserError(f"{name} gives no maps at strides {strides}, which {head} needs: {error}", where="--model") from None
        more = LastLevelMaxPool() if head in ("fasterrcnn", "maskrcnn") else LastLevelP6P7(WIDTH, WIDTH)
        self.fpn = FeaturePyramidNetwork(channels, WIDTH, extra_blocks=more)
        self.out_channels = WIDTH

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name, finest first."""
        maps = self.body(images)
        rows = maps.values() if isinstance(maps, dict) else maps
        found: dict[str, Tensor] = self.fpn({str(place): value for place, value in enumerate(rows)})
        return found


def _of_timm(name: str, strides: Sequence[int]) -> tuple[Any, list[int]]:
    """A network that gives maps at these strides, and their channels."""
    import timm

    with torch.device("meta"):  # only asked what it has
        whole: Any = timm.create_model(name, features_only=True, pretrained=False)
    reductions = whole.feature_info.reduction()
    places = [reductions.index(stride) for stride in strides]
    body: Any = timm.create_model(name, features_only=True, pretrained=False, out_indices=places)
    return body, body.feature_info.channels()


@torch.no_grad()
def _of_torchvision(name: str, strides: Sequence[int]) -> tuple[Any, list[int]]:
    """The same; a map is the last that has its stride."""
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    with torch.device("cpu"):  # some reckon with tensors how wide they are
        shown = models.get_model(name, weights=None).to("meta").eval()
        network = models.get_model(name, weights=None)
    nodes = get_graph_node_names(shown, suppress_diff_warning=True)[1]
    found = create_feature_extractor(shown, nodes, suppress_diff_warning=True)(torch.zeros(1, 3, SIDE, SIDE, device="meta"))
    shapes = {node: value.shape for node, value in found.items() if isinstance(value, Tensor) and value.ndim == 4}
    last = {shape[2]: node for node, shape in shapes.items() if shape[2] == shape[3]}
    chosen = [last[SIDE // stride] for stride in strides]
    return_nodes = {node: str(place) for place, node in enumerate(chosen)}
    body = create_feature_extractor(network.to(torch.get_default_device()), return_nodes, suppress_diff_warning=True)
    return body, [shapes[node][1] for node in chosen]
