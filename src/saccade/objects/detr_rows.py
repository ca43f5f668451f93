"""What describes the detectors of transformers, by rows of the rooms' tables. Neither torch nor transformers is imported here."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.core import licenses
from saccade.core.errors import UserError
from saccade.task import ModelRow

APACHE = "apache-2.0"
DINOV3 = "dinov3-license"  # Meta's, of weights that descend from DINOv3's (github.com/facebookresearch/dinov3, LICENSE.md, section 1.b)
UNSCALED = ("rt_detr_resnet", "hgnet_v2")  # networks whose published weights have seen values in 0..1 as they are


@dataclass(frozen=True)
class Family:
    """begin: how its classes' names begin in transformers; losses: the parts of its loss, and the setting that weighs each, "" where it is
    weighed already."""

    begin: str
    losses: Mapping[str, str]


_REFINED = {"bbox": "", "giou": "", "fgl": "", "ddf": ""}
_SET = {"ce": "class_loss_coefficient", "bbox": "bbox_loss_coefficient", "giou": "giou_loss_coefficient"}
FAMILIES = {  # by transformers' name of its folder
    "rt_detr_v2": Family("RTDetrV2", {"vfl": "", "bbox": "", "giou": ""}),
    "d_fine": Family("DFine", {"vfl": "", **_REFINED}),
    "deimv2": Family("Deimv2", {"mal": "", **_REFINED}),
    "rf_detr": Family("RfDetr", _SET),
}


@dataclass(frozen=True)
class Row:
    """family: one of FAMILIES; backbone, settings: what differs from the defaults of its configuration; parameters: with 80 classes and
    three channels (a test holds them true); ap: box or mask AP on COCO val2017, in hundredths; repository: of the weights, on the Hugging
    Face hub; license: of these weights; masks: whether it finds them too; side: of the square images that they were measured on, in pixels.
    """

    family: str
    parameters: int
    ap: float
    repository: str
    backbone: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    license: str = APACHE
    masks: bool = False
    side: int = 640

    @property
    def unscaled(self) -> bool:
        """Whether its weights expect values in 0..1 as they are."""
        return self.backbone["model_type"] in UNSCALED


def listed(rows: Mapping[str, Row]) -> list[ModelRow]:
    """Rows as a room's table has them."""
    return [
        ModelRow(
            name,
            "transformers",
            row.parameters,
            row.license,
            round(row.ap / 100, 3),
            "COCO val2017",
            size=(row.side, row.side),
            weights=row.repository,
        )
        for name, row in rows.items()
    ]


def architecture(name: str, *, classes: int, channels: int) -> dict[str, Any]:
    """Plain JSON that rebuilds one of them. nms: False, as each object has a query of its own to answer for it."""
    return {"source": "transformers", "name": name, "arguments": {"classes": classes, "channels": channels}, "nms": False}


def check(name: str) -> None:
    """Raise UserError where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{name} needs transformers, which is not installed", where="--model", fix="pip install 'saccade[transformers]'")


def check_license(name: str, row: Row, allowed: Sequence[str]) -> None:
    """Raise UserError where published weights are asked for whose licence does not allow every use, and it is not among those that the
    user allows."""
    if row.license == DINOV3 and not licenses.allowed(DINOV3, allowed):
        fix = f"where your use is allowed: --license {DINOV3}; or give other weights as --weights FILE"
        raise UserError(f"the weights of {name} descend from Meta's DINOv3, whose licence forbids some uses", where="--pretrained", fix=fix)
