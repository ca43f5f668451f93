"""The models that detect, by name. torch is not imported here."""

from __future__ import annotations

from typing import Any

from saccade.core.errors import unknown
from saccade.objects.models import Own
from saccade.task import ModelRow
from saccade.tasks.detection.models import detr_rows

OWN = {"small_detector": Own((32, 64, 128, 192), (1, 1, 2, 1), 64, parameters=1_590_944)}

APACHE, BSD = "apache-2.0", "bsd-3-clause"
# torchvision's: parameters with 91 classes, box AP of its weights on COCO val2017, as its table of weights states both (a test holds them).
TORCHVISION = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": (19_386_354, 22.8),
    "fasterrcnn_mobilenet_v3_large_fpn": (19_386_354, 32.8),
    "fasterrcnn_resnet50_fpn": (41_755_286, 37.0),
    "fasterrcnn_resnet50_fpn_v2": (43_712_278, 46.7),
    "fcos_resnet50_fpn": (32_269_600, 39.2),
    "retinanet_resnet50_fpn": (34_014_999, 36.4),
    "retinanet_resnet50_fpn_v2": (38_198_935, 41.5),
    "ssd300_vgg16": (35_641_826, 25.1),
    "ssdlite320_mobilenet_v3_large": (3_440_060, 21.3),
}
HEADS = ("fasterrcnn", "fcos", "retinanet")  # on any network of timm that gives maps: fasterrcnn/densenet121


def rows() -> list[ModelRow]:
    """Those that have a name of their own; a head may stand on any network: HEAD/NETWORK."""
    ours = [ModelRow(name, "saccade", own.parameters) for name, own in OWN.items()]
    theirs = [ModelRow(name, "torchvision", count, BSD, ap / 100, "COCO val2017") for name, (count, ap) in TORCHVISION.items()]
    queries = [
        ModelRow(name, "transformers", row.parameters, APACHE, row.ap / 100, "COCO val2017", weights=row.repository)
        for name, row in detr_rows.ROWS.items()
    ]
    return ours + theirs + queries


def architecture(name: str, classes: int, channels: int) -> dict[str, Any]:
    """Plain JSON that rebuilds a detector of a library. nms: False where each object has a query of its own to answer for it."""
    arguments = {"classes": classes, "channels": channels}
    if name in detr_rows.ROWS:
        return {"source": "transformers", "name": name, "arguments": arguments, "nms": False}
    return {"source": "torchvision", "name": name, "arguments": arguments}


def check(name: str) -> None:
    """Raise UserError with the nearest for a name that is none; HEAD/NETWORK stands for a head on a network of timm."""
    if name in detr_rows.ROWS:
        return detr_rows.check(name)
    head, slash, network = name.partition("/")
    if not slash and name in TORCHVISION:
        return
    if not slash or head not in HEADS:
        raise unknown("model", name, [*OWN, *TORCHVISION, *detr_rows.ROWS, *(f"{head}/NETWORK" for head in HEADS)], where="--model")
    import timm

    if "." in network or not timm.is_model(network):  # a tag is a set of weights
        raise unknown("model", network, timm.list_models(), where="--model")
