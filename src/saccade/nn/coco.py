"""torchvision's networks that learned from COCO, detectors and those that segment: their published weights, and what these tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.nn import fetching, pretrained
from saccade.nn.pretrained import BSD, COCO, HALF, MEAN, STD, Weights

if TYPE_CHECKING:
    from torch import nn

# Of its detectors, those that expect other values than ImageNet's, as their constructors have it.
SEEN = {
    "ssd300_vgg16": ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3),
    "ssdlite320_mobilenet_v3_large": (HALF, HALF),
}
CALLED = {"N/A": "", "__background__": "background"}  # of its names of classes


def weights(name: str) -> Weights:
    """The weights behind a network, without any download; size: (0, 0), as they take any."""
    found = _stated(name)
    file = found.url.rpartition("/")[2]
    return Weights("", file, found.url, BSD, *SEEN.get(name, (MEAN, STD)), (0, 0), int(found.meta["num_params"]), COCO)


def categories(name: str) -> tuple[str, ...]:
    """What these weights tell apart: those of a detector COCO's classes by number, from 1 on, "" for a number that none has; others the
    background and the twenty classes of Pascal VOC."""
    from torchvision import models
    from torchvision.models import segmentation

    first = 0 if name in models.list_models(module=segmentation) else 1
    return tuple(CALLED.get(one, one) for one in _stated(name).meta["categories"][first:])


def classes(name: str, file: Path) -> tuple[str, ...]:
    """The same of a file from elsewhere, where its name and its sum say that it is what is published of the network; () of any other."""
    from torchvision import models
    from torchvision.models import detection, segmentation

    known = name in (*models.list_models(module=detection), *models.list_models(module=segmentation)) and file.name == weights(name).file
    return categories(name) if known and fetching.holds(file.read_bytes(), pretrained.published(weights(name))) else ()


def fill(network: nn.Module, wider: nn.Module, name: str, of: Sequence[str]) -> dict[str, str]:
    """Give a network that tells the classes `of` apart its published weights, fetched unless they were before: of its classes those that
    these know by the same names, while what tells of others stays fresh. wider: the same network with one class more. Returns their link
    of the licence chain. Raises UserError naming the address where the file cannot be had, or is another's."""
    from saccade.nn import checkpoints
    from saccade.nn.weights import rows_of_classes

    told = weights(name)
    file = pretrained.fetch_torchvisions(name, told)
    known = categories(name)
    same = [(known.index(one), here) for here, one in enumerate(of) if one in known]
    place = checkpoints.Place(rows_of_classes(network, wider, len(of)))
    checkpoints.take(network, checkpoints.read(file), place, same, least=1.0)
    return told.link(file.name, file)


def _stated(name: str) -> Any:
    from torchvision import models

    table: Any = models.get_model_weights(name)
    return table.DEFAULT
