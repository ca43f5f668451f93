"""torchvision's detectors behind the rooms' doors: their own losses and post-processing, images as the rooms prepare them.

torchvision's transform, which scales images and pads a batch to its largest, is taken out: images come fitted and padded by `core.prepare`,
so that an answer does not depend on the neighbours. Label 0 is torchvision's background, ours begin at 1 there. Crowds are not left out of
its losses: what is in them is background to it. Masks are left as they are found, a grid over each box: `core.object_masks` draws them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSD

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.finish import LEAST, MOST
from saccade.core.geometry import FILL, MULTIPLE, padded
from saccade.data.loader import Batch
from saccade.nn import coco
from saccade.nn.layers.normalize import Normalize
from saccade.objects.decode import NOTHING, Gridded
from saccade.objects.models import Theirs
from saccade.objects.pyramid import Pyramid
from saccade.task import Losses

MOST_CLASSES = 100_000
HALF = 128  # 255ths of a cell from which it is covered
LEAST_SIDE = {"ssd300_vgg16": 288}  # pixels, below which its last maps have no place


class AsTheyAre(nn.Module):
    """In place of torchvision's transform: changes nothing."""

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[Any, Any]:
        """Images of one shape as its ImageList."""
        from torchvision.models.detection.image_list import ImageList

        return ImageList(torch.stack(images), [(image.shape[1], image.shape[2]) for image in images]), targets

    def postprocess(self, result: Any, shapes: Any, sizes: Any) -> Any:
        """Boxes lie in the pixels of the input already."""
        return result


class Library(nn.Module):
    """uint8 `[B, C, H, W]` -> float32 `[B, MOST, 4 + K]`: boxes x1, y1, x2, y2 in pixels of the input, then logits of the classes; from
    networks that find masks Gridded ones."""

    def __init__(self, spec: InputSpec, name: str, classes: int) -> None:
        super().__init__()
        self.classes, self.least = classes, LEAST_SIDE.get(name, 1)
        self.normalize = Normalize(spec)
        self.network: Any = _network(name, classes + 1)
        self.network.transform = AsTheyAre()
        told = getattr(self.network, "roi_heads", self.network)
        told.score_thresh, told.detections_per_img = LEAST, MOST

    def blocks_of_classes(self, name: str) -> int:
        """How often a tensor of this name has rows of classes: once for each anchor, where these are told apart at every place."""
        return len(self.state_dict()[name]) // (self.classes + 1) if "classification_head" in name else 1

    @property
    def finest(self) -> nn.Module:
        """The module that gives the finest map, `[B, F, h, w]`."""
        backbone = self.network.backbone
        found: nn.Module = backbone.fpn.layer_blocks[0] if hasattr(backbone, "fpn") else backbone.features
        return found[0] if isinstance(found, nn.Sequential) and isinstance(found[0], nn.Sequential) else found

    def losses(self, batch: Batch) -> Losses:
        """torchvision's own, times the images: it averages inside, over images, or over what it has drawn from all of them, so that
        micro-batches weigh as many images as they have, whatever is on these. Masks may be told in cells of any size."""
        if len(batch) == 1 and isinstance(self.network, SSD):  # its last map may be one place: no batch statistics of a single image
            batch = replace(
                batch, images=batch.images.repeat(2, 1, 1, 1), targets={name: torch.cat([one, one]) for name, one in batch.targets.items()}
            )
            twice = self.losses(batch)
            return Losses(twice.total / 2, 1.0, {name: value / 2 for name, value in twice.parts.items()})
        rows = zip(batch.targets["boxes"], batch.targets["labels"], strict=True)
        targets = [{"boxes": boxes[labels >= 0], "labels": labels[labels >= 0] + 1} for boxes, labels in rows]
        if "masks" in batch.targets:
            masks = (F.interpolate(batch.targets["masks"], batch.images.shape[2:]) >= HALF).byte()
            for target, own, labels in zip(targets, masks, batch.targets["labels"], strict=True):
                target["masks"] = own[labels >= 0]
        found: dict[str, Tensor] = self.network(self._prepared(batch.images), targets)
        parts = {name: value * len(batch) for name, value in found.items()}
        return Losses(torch.stack(list(parts.values())).sum(), float(len(batch)), parts)

    def forward(self, images: Tensor) -> Tensor | Gridded:
        """As the class says."""
        found: list[dict[str, Tensor]] = self.network(self._prepared(images))
        outputs, grids = [], []
        for one in found:
            known = one["labels"] > 0  # heads of one score for each class have one for the background too, which is never learned
            logits = one["scores"][known].float().logit(1e-6)
            rows = torch.full((len(logits), self.classes), NOTHING, device=logits.device)
            rows = rows.scatter(1, one["labels"][known, None] - 1, logits[:, None])
            whole = torch.cat([one["boxes"][known].float(), rows], 1)
            rest = torch.zeros(MOST - len(whole), 4 + self.classes, device=logits.device)
            rest[:, 4:] = NOTHING
            outputs.append(torch.cat([whole, rest]))
            if "masks" in one:
                grids.append(F.pad(one["masks"][known, 0].float(), (0, 0, 0, 0, 0, len(rest))))
        return Gridded(torch.stack(outputs), torch.stack(grids)) if grids else torch.stack(outputs)

    def _prepared(self, images: Tensor) -> list[Tensor]:
        down, across = (max(0, self.least - side) for side in images.shape[2:])
        normal: Tensor = self.normalize(F.pad(images, (0, across, 0, down), value=FILL) if down or across else images)
        return list(normal.expand(-1, 3, -1, -1))  # a grey image has three equal channels


@torch.no_grad()
def _try_out(card: Card) -> None:
    """Raise UserError for a head on a network that does not run at the card's size and at another; computes nothing."""
    name = str(card.architecture["name"])
    head, slash, network = name.partition("/")
    if not slash:
        return
    height, width = padded(card.input.size)
    with torch.device("meta"):
        pyramid = Pyramid(network, head).eval()
        try:
            for size in ((height, width), (height + 2 * MULTIPLE, width + MULTIPLE)):
                pyramid(torch.zeros(1, 3, *size))
        except Exception as error:  # its networks too
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{network} gives no maps for images of any size, which {head} needs: {said}", where="--model") from None


def rebuild(card: Card, theirs: Theirs, elements: int | None = None) -> Library:
    """The module of `theirs` that a card describes, with fresh weights; raises UserError for one of more than `elements` numbers, and,
    where it is new, for a head on a network that does not run at any size."""
    name = card.architecture.get("name")
    if not isinstance(name, str) or card.architecture.get("arguments") != {"classes": len(card.classes), "channels": card.input.channels}:
        raise UserError("not the architecture of a detector of torchvision", where="card", fix="the file was put together wrongly")
    if card.input.resize != "fit" or not 1 <= len(card.classes) <= MOST_CLASSES:
        raise UserError(f"a detector has 1 to {MOST_CLASSES} classes, and images that are fitted whole", where="card")
    theirs.check(name, theirs.named)
    if elements is None:
        _try_out(card)
    else:
        with torch.device("meta"):
            needed = sum(value.numel() for value in Library(card.input, name, len(card.classes)).state_dict().values())
        if needed > elements:
            raise UserError(f"the architecture needs {needed:,} numbers, but the file holds {elements:,}", where="card")
    return Library(card.input, name, len(card.classes))


def start_from_published(network: Library, card: Card) -> dict[str, str]:
    """Fill a network with its published weights, of its classes those that COCO has by the same names. Returns their link of the licence
    chain. Raises UserError as `coco.fill`."""
    name = str(card.architecture["name"])
    with torch.device("meta"):
        wider = Library(card.input, name, len(card.classes) + 1)
    return coco.fill(network, wider, name, card.classes)


def _network(name: str, classes: int) -> nn.Module:
    """torchvision's module with fresh weights; classes: with the background."""
    from torchvision import models
    from torchvision.models import detection

    head, slash, network = name.partition("/")
    if not slash:
        found: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
        return found
    kinds = {"fasterrcnn": detection.FasterRCNN, "maskrcnn": detection.MaskRCNN, "fcos": detection.FCOS, "retinanet": detection.RetinaNet}
    made: nn.Module = kinds[head](Pyramid(network, head), num_classes=classes)
    return made
