"""Stems for small images: networks made for 224 px halve a picture five times, which leaves nothing of one of 32 px.

ResNet and DenseNet start at stride 1 without a pool (He et al. 2016, section 4.2: the CIFAR networks); VGG loses its
first pools; a vision transformer gets smaller patches; for all others the input is enlarged inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]

SMALL = 64  # longest side in pixels up to which a picture is small
ENLARGED = 128  # what its longest side is enlarged to, at least, for networks without a stem of their own
VISION_TRANSFORMERS = (
    "models.vision_transformer.VisionTransformer",
    "models.vision_transformer_relpos.VisionTransformerRelPos",
    "models.eva.Eva",
    "models.beit.Beit",
)
VGG_MAP = 4  # shortest side of VGG's last map


@dataclass(frozen=True)
class Plan:
    """One way to fit a network to an image: the stem as plain JSON, more constructor arguments, and the (height, width) that it runs at."""

    size: Size
    stem: dict[str, Any] = field(default_factory=lambda: {"kind": "own"})
    arguments: dict[str, Any] = field(default_factory=dict)


class Resized(nn.Module):
    """A network that sees its input enlarged: [B, C, H, W] -> bilinear to [B, C, h, w] -> network."""

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.pretrained_cfg = getattr(network, "pretrained_cfg", {})

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W] -> what the network makes of it."""
        outputs: Tensor = self.network(F.interpolate(images, self.size, mode="bilinear", align_corners=False))
        return outputs


def plans(network: nn.Module, size: Size, *, small_stem: bool | None) -> Iterator[Plan]:
    """The ways to run `network` on images of `size`, best first; which of them work is for the caller to try.

    small_stem: True asks for a stem, False for the network as it is, None for a stem or an enlarged input where the
    image is small.
    """
    small = max(size) <= SMALL
    if small_stem or (small and small_stem is None):
        yield from _stems(network, size)
    if small and small_stem is not False:
        size = _times(size, -(-ENLARGED // max(size)))
    yield from (Plan(fitting) for fitting in _sizes(network, size))


def as_it_is(network: nn.Module, size: Size) -> Iterator[Plan]:
    """The ways for a network with pre-trained weights: no changed stem, a small image is enlarged."""
    scale = -(-ENLARGED // max(size)) if max(size) <= SMALL else 1
    yield from (Plan(fitting) for fitting in _sizes(network, _times(size, scale)))


def apply(network: nn.Module, stem: dict[str, Any]) -> nn.Module:
    """`network` with the stem that a plan states, changed in place. Raises ValueError where it does not fit the network."""
    kind = stem.get("kind")
    if kind == "stride1":
        _stride_one(network)
    elif kind == "drop_pools":
        _drop_pools(network, stem["count"], stem["kernel"])
    elif kind != "own":
        raise ValueError(f"unknown stem {kind!r}")
    return network


def _stems(network: nn.Module, size: Size) -> Iterator[Plan]:
    patch = _patch(network)
    if is_a(network, "models.resnet.ResNet", "models.densenet.DenseNet"):
        # Four halvings follow the stem; a very narrow image is enlarged until they go through.
        yield from (Plan(_times(size, scale), {"kind": "stride1"}) for scale in (1, 2, 4, 8, 16))
    elif is_a(network, "models.vgg.VGG"):
        yield from (_vgg(_times(size, scale)) for scale in (1, 2, 4))
    elif patch:
        small = 2 if max(size) <= 16 else 4 if max(size) <= 40 else 8
        if small < patch:
            yield Plan(_ceil(size, small), arguments={"patch_size": small})


def _vgg(size: Size) -> Plan:
    kept = next((n for n in (5, 4, 3, 2, 1) if min(size) >> n >= VGG_MAP), 0)
    # The head's first convolution takes 7x7 and would have a smaller map stretched to it: it shrinks with the map.
    kernel = max(1, min(7, size[0] >> kept, size[1] >> kept))
    return Plan(size, {"kind": "drop_pools", "count": 5 - kept, "kernel": kernel})


def _sizes(network: nn.Module, size: Size) -> Iterator[Size]:
    """`size`, and the next larger ones that networks with a rule for their input ask for; at last the network's own."""
    native = tuple(getattr(network, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[1:])
    larger = native if native[0] >= size[0] and native[1] >= size[1] else size
    # A convolution that cuts patches would drop the pixels after the last whole one, so that comes before all.
    cut: Any = next((part for part in network.modules() if is_a(part, "layers.patch_embed.PatchEmbed")), None)
    exact = _ceil(size, max(cut.patch_size)) if cut else size
    yield from dict.fromkeys([exact, _ceil(size, 32), _ceil(size, 64), (larger[0], larger[1])])


def _patch(network: nn.Module) -> int:
    """The patch size of a vision transformer whose picture is cut up by one convolution; 0 for all others."""
    if not is_a(network, *VISION_TRANSFORMERS):
        return 0
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (0, 0))
    convolution = getattr(getattr(network, "patch_embed", None), "proj", None)
    return int(patch[0]) if isinstance(convolution, nn.Conv2d) and patch[0] == patch[1] else 0


def is_a(network: nn.Module, *names: str) -> bool:
    """Whether `network` is of one of timm's classes, named "models.module.Class"; subclasses too."""
    return any(f"timm.{name}" == f"{kind.__module__}.{kind.__name__}" for kind in type(network).__mro__ for name in names)


def _stride_one(network: nn.Module) -> None:
    if is_a(network, "models.resnet.ResNet"):
        network.conv1 = _first(network.get_submodule("conv1"))
        network.maxpool = nn.Identity()
    elif is_a(network, "models.densenet.DenseNet"):
        features = network.get_submodule("features")
        features.conv0 = _first(features.get_submodule("conv0"))
        features.pool0 = nn.Identity()
    else:
        raise ValueError(f"no stem of stride 1 is known for {type(network).__name__}")


def _first(stem: nn.Module) -> nn.Module:
    """A first convolution, 7x7 or the first of three 3x3, as a 3x3 of stride 1."""
    old = stem[0] if isinstance(stem, nn.Sequential) else stem
    if not isinstance(old, nn.Conv2d):
        raise ValueError(f"the first layer must be a convolution, is {type(old).__name__}")
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, 1, 1, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if not isinstance(stem, nn.Sequential):
        return new
    stem[0] = new
    return stem


def _drop_pools(network: nn.Module, count: int, kernel: int) -> None:
    if not is_a(network, "models.vgg.VGG"):
        raise ValueError(f"no pools are known to be dropped from {type(network).__name__}")
    features: nn.Module = network.get_submodule("features")
    head: Any = network.get_submodule("pre_logits")
    pools = [name for name, module in features.named_children() if isinstance(module, nn.MaxPool2d)]
    for name in pools[:count]:
        features.set_submodule(name, nn.Identity())
    old = head.get_submodule("fc1")
    if isinstance(old, nn.Conv2d) and kernel != old.kernel_size[0]:
        new = nn.Conv2d(old.in_channels, old.out_channels, kernel)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        head.set_submodule("fc1", new)
        head.input_kernel_size = kernel


def _ceil(size: Size, multiple: int) -> Size:
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def _times(size: Size, scale: int) -> Size:
    return size[0] * scale, size[1] * scale
