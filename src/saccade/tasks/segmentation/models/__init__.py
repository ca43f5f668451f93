"""The models that segment, by name. torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saccade.core.errors import unknown
from saccade.queries import rows as query_rows
from saccade.task import ModelRow, counted
from saccade.tasks.segmentation.models import segformer_rows
from saccade.tasks.segmentation.recipes import SIDE


@dataclass(frozen=True)
class Own:
    """A network that is ours, for any size.

    widths, blocks: channels and residual blocks of the stages at a half, 4th, 8th, 16th and 32nd of the input; parameters: with 21 classes
    and three channels (a test holds them true).
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    parameters: int

    def architecture(self, name: str, *, classes: int, channels: int) -> dict[str, Any]:
        """Plain JSON that rebuilds it."""
        arguments = {"classes": classes, "channels": channels, "widths": list(self.widths), "blocks": list(self.blocks)}
        return {"source": "saccade", "name": name, "arguments": arguments}


OWN = {"small_unet": Own((16, 32, 96, 128, 160), (1, 1, 2, 2, 2), parameters=2_055_208)}

TASK, BSD, TAG = "segment", "bsd-3-clause", "COCO_WITH_VOC_LABELS_V1"
FITTED = (520, 520)  # (height, width) of which torchvision makes images the shorter side
QUERIES = query_rows.ROWS[TASK]  # Mask2Former and EoMT, whose queries answer with masks
# torchvision's: parameters with 21 classes, mean IoU of its weights on COCO val2017 with VOC's classes, and the file of these, as its table
# of weights states them (a test holds them).
TORCHVISION = {
    "deeplabv3_mobilenet_v3_large": (11_029_328, 60.3, "deeplabv3_mobilenet_v3_large-fc3c493d.pth"),
    "deeplabv3_resnet50": (42_004_074, 66.4, "deeplabv3_resnet50_coco-cd0a2569.pth"),
    "deeplabv3_resnet101": (60_996_202, 67.4, "deeplabv3_resnet101_coco-586e9e4e.pth"),
    "fcn_resnet50": (35_322_218, 60.5, "fcn_resnet50_coco-1167a1af.pth"),
    "fcn_resnet101": (54_314_346, 63.7, "fcn_resnet101_coco-7ecb50ca.pth"),
    "lraspp_mobilenet_v3_large": (3_221_538, 57.9, "lraspp_mobilenet_v3_large-d234d4ea.pth"),
}
# Decoders of segmentation_models_pytorch, on any network of timm that gives maps: unet/resnet34. By name: its class.
DECODERS = {
    "deeplabv3plus": "DeepLabV3Plus",
    "fpn": "FPN",
    "linknet": "Linknet",
    "manet": "MAnet",
    "segformer": "Segformer",
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "upernet": "UPerNet",
}


def rows() -> list[ModelRow]:
    """Those that have a name of their own; a decoder may stand on any network: DECODER/NETWORK."""
    ours = [ModelRow(name, "saccade", own.parameters, size=(SIDE, SIDE)) for name, own in OWN.items()]
    theirs = [
        ModelRow(name, "torchvision", count, BSD, round(iou / 100, 3), "COCO val2017, VOC's classes", size=FITTED, weights=file, tag=TAG)
        for name, (count, iou, file) in TORCHVISION.items()
    ]
    mixed = [
        ModelRow(
            name, "transformers", row.parameters, segformer_rows.LICENSE, round(row.miou / 100, 3), "ADE20K", size=(row.side, row.side)
        )
        for name, row in segformer_rows.ROWS.items()
    ]
    return counted([*ours, *theirs, *mixed, *query_rows.listed(TASK)], __name__)


def check(name: str) -> None:
    """Raise UserError with the nearest for a name that is none; DECODER/NETWORK stands for a decoder on a network of timm."""
    if name in segformer_rows.ROWS:
        return segformer_rows.check(name)
    if name in QUERIES:
        return query_rows.check(name)
    decoder, slash, network = name.partition("/")
    if not slash and (name in OWN or name in TORCHVISION):
        return
    if not slash or decoder not in DECODERS:
        known = [*OWN, *TORCHVISION, *segformer_rows.ROWS, *QUERIES, *(f"{one}/NETWORK" for one in DECODERS)]
        raise unknown("model", name, known, where="--model")
    import timm

    if "." in network or not timm.is_model(network):  # a tag is a set of weights
        raise unknown("model", network, timm.list_models(), where="--model")
