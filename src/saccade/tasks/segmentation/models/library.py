"""Networks of torchvision and of transformers (SegFormer), and decoders of segmentation_models_pytorch on networks of timm, behind the
room's doors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.geometry import FILL, MULTIPLE, padded
from saccade.nn import coco
from saccade.nn.layers.normalize import Normalize
from saccade.tasks.segmentation.models import DECODERS, TORCHVISION, segformer_rows


class Library(nn.Module):
    """uint8 `[B, C, H, W]` -> logits float32 `[B, K, H, W]`; a grey image has three equal channels."""

    def __init__(self, spec: InputSpec, name: str, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(spec)
        self.network: Any = _network(name, classes)

    @property
    def seen(self) -> nn.Module:
        """The module whose map `[B, F, h, w]` explanation reads."""
        if hasattr(self.network, "decoder"):
            decoder: nn.Module = self.network.decoder
            return decoder
        if hasattr(self.network, "decode_head"):
            fused: nn.Module = self.network.decode_head.batch_norm
            return fused
        head: Any = self.network.classifier
        found: nn.Module = head[0] if isinstance(head, nn.Sequential) else head.cbr
        return found

    def forward(self, images: Tensor) -> Tensor:
        """As the class says; sides that are no multiples of 32 are padded, and cut again."""
        height, width = images.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            images = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=FILL)
        # Some decoders average all of an image into one place, of which a single image has no batch statistics.
        alone = self.training and len(images) == 1
        pixels = self.normalize(images.repeat(2, 1, 1, 1) if alone else images).expand(-1, 3, -1, -1)
        logits = _logits(self.network(pixels), (pixels.shape[2], pixels.shape[3]))[..., :height, :width].float()
        return logits[:1] if alone else logits


def _logits(found: Any, size: tuple[int, int]) -> Tensor:
    """What a network gives, at each pixel of its input of (height, width)."""
    logits: Tensor = found.logits if hasattr(found, "logits") else found["out"] if isinstance(found, dict) else found
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def rebuild(card: Card, elements: int | None = None) -> Library:
    """The module that a card describes, with fresh weights; raises UserError for one of more than `elements` numbers, and, where it is new,
    for a decoder on a network that does not run at any size."""
    name, classes = str(card.architecture["name"]), len(card.classes)
    kind = Library
    if name in segformer_rows.ROWS:
        from saccade.tasks.segmentation.models import segformer

        kind = segformer.Segformer
    with torch.device("meta"):
        empty = kind(card.input, name, classes).eval()
        if elements is None:
            _try_out(empty, card)
        needed = sum(value.numel() for value in empty.state_dict().values())
    if elements is not None and needed > elements:
        raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return kind(card.input, name, classes)


def start_from_published(network: Library, card: Card) -> dict[str, str]:
    """Fill a network of torchvision with its published weights, of its classes those of Pascal VOC by the same names, and the background;
    the second head, which its authors learned by, is left out. Returns their link of the licence chain. Raises UserError as `coco.fill`."""
    name = str(card.architecture["name"])
    with torch.device("meta"):
        wider = Library(card.input, name, len(card.classes) + 1)
    return coco.fill(network, wider, name, card.classes)


@torch.no_grad()
def _try_out(empty: Library, card: Card) -> None:
    height, width = padded(card.input.size)
    for size in ((height, width), (height + 2 * MULTIPLE, width + MULTIPLE)):
        try:
            empty.network(torch.zeros(1, 3, *size))
        except Exception as error:  # networks of timm raise anything
            said = " ".join(str(error).split())[:200]
            name = card.architecture["name"]
            raise UserError(f"{name} does not take images of any size: {said}", where="--model") from None


def _network(name: str, classes: int) -> nn.Module:
    """The libraries' module with fresh weights."""
    if name in TORCHVISION:
        from torchvision import models

        found: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
        return found
    if name in segformer_rows.ROWS:
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        settings: dict[str, Any] = {"num_labels": classes, **segformer_rows.ROWS[name].settings}
        made: nn.Module = SegformerForSemanticSegmentation(SegformerConfig(**settings))
        return made
    import segmentation_models_pytorch as smp

    decoder, _, network = name.partition("/")
    try:
        made = getattr(smp, DECODERS[decoder])(f"tu-{network}", encoder_weights=None, classes=classes)
    except Exception as error:  # its and timm's constructors raise anything
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{network} gives no maps that {decoder} can stand on: {said}", where="--model") from None
    return made
