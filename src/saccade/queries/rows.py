"""The networks of transformers whose queries answer with masks, by name: their configurations, and what is published of them for each
task. Neither torch nor transformers is imported.

Mask2Former (Cheng et al. 2022): sizes and figures are those of the authors' configurations and MODEL_ZOO.md
(github.com/facebookresearch/Mask2Former), at one scale. EoMT (Kerssies et al. 2025, "Your ViT is secretly an image segmentation model"):
of model_zoo/dinov2.md and dinov3.md (github.com/tue-mps/eomt).

The code is transformers', under the Apache License 2.0. The weights are not all free: those of Mask2Former are under CC BY-NC 4.0
(MODEL_ZOO.md, "License"); those of EoMT under the MIT licence, and descend from DINOv2 (Apache-2.0) or DINOv3 (Meta's own licence).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saccade.core import licenses
from saccade.core.errors import UserError
from saccade.task import ModelRow

NONCOMMERCIAL, META, MIT, APACHE = "cc-by-nc-4.0", "dinov3-license", "mit", "apache-2.0"
ASKED = {NONCOMMERCIAL: "whose licence forbids commercial use", META: "under a licence of Meta's own"}  # what must be allowed by name
FAMILIES = {
    "mask2former": "Mask2Former",
    "eomt": "Eomt",
    "eomt_dinov3": "EomtDinov3",
}  # by transformers' folder: how its classes' names begin
ADE, COCO, VAL, LVD = "ADE20K", "COCO train2017", "COCO val2017", ("LVD-142M", "LVD-1689M")


@dataclass(frozen=True)
class Row:
    """A network for a task.

    family: one of FAMILIES; settings: what differs from the defaults of its configuration; parameters: with 21 classes where it segments,
    80 where it finds instances, 133 where it tells things and stuff, and three channels (a test holds them true); figure: as published, in
    hundredths; repository: of the weights, on the Hugging Face hub; license: theirs; before: the link of what they descend from;
    size: (height, width) to which images were fitted for that figure.
    """

    family: str
    settings: Mapping[str, Any]
    parameters: int
    figure: float
    repository: str
    license: str
    before: Mapping[str, str]
    size: tuple[int, int] = (800, 1333)


def _swin(width: int, middle: int, heads: int, window: int) -> dict[str, Any]:
    """Mask2Former on a Swin transformer (Liu et al. 2021): channels of its first stage, layers of the third, heads of the first, window."""
    backbone = {
        "model_type": "swin",
        "embed_dim": width,
        "depths": [2, 2, middle, 2],
        "num_heads": [heads * 2**stage for stage in range(4)],
        "window_size": window,
        "drop_path_rate": 0.3,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return {"backbone_config": backbone}


def _mask2former(settings: Mapping[str, Any], parameters: int, figure: float, name: str, images: str, queries: int = 100) -> Row:
    before = licenses.link("Swin Transformer", license=MIT, source="github.com/microsoft/Swin-Transformer", data=images)
    settings = {**settings, "num_queries": queries}
    return Row("mask2former", settings, parameters, figure, f"facebook/mask2former-swin-{name}", NONCOMMERCIAL, before)


def _on_ade(settings: Mapping[str, Any], parameters: int, figure: float, name: str, images: str, side: int) -> Row:
    """As `_mask2former`, for classes of pixels, learned from squares of so many pixels of a side."""
    return replace(_mask2former(settings, parameters, figure, f"{name}-ade-semantic", images), size=(side, side))


def _vit(side: int, queries: int) -> dict[str, Any]:
    """EoMT on a ViT-L/16, whose positions have learned from images of so many pixels of a side (only DINOv2's)."""
    return {"image_size": side, "num_queries": queries}


def _eomt(settings: Mapping[str, Any], parameters: int, figure: float, name: str, *, version: int = 2) -> Row:
    backbone, license = {2: ("dinov2", APACHE), 3: ("dinov3", META)}[version]
    before = licenses.link(f"{backbone}-vit-l", license=license, source=f"github.com/facebookresearch/{backbone}", data=LVD[version - 2])
    family, own = ("eomt", MIT) if version == 2 else ("eomt_dinov3", META)
    side = settings["image_size"]
    return Row(family, settings, parameters, figure, f"tue-mps/{name}", own, before, (side, side))


_TINY, _SMALL, _BASE, _LARGE = _swin(96, 6, 3, 7), _swin(96, 18, 3, 7), _swin(128, 18, 4, 12), _swin(192, 18, 6, 12)
_1K, _21K = "ImageNet-1k", "ImageNet-21k"
ROWS: dict[str, dict[str, Row]] = {  # by task
    "segment": {
        "mask2former_swin_tiny": _on_ade(_TINY, 47_406_480, 47.7, "tiny", _1K, 512),
        "mask2former_swin_small": _on_ade(_SMALL, 68_724_384, 51.3, "small", _1K, 512),
        "mask2former_swin_base": _on_ade(_BASE, 106_889_038, 52.4, "base", _1K, 640),
        "mask2former_swin_large": _on_ade(_LARGE, 215_455_626, 56.1, "large", _21K, 640),
        "eomt_large": _eomt(_vit(512, 100), 315_888_662, 58.4, "ade20k_semantic_eomt_large_512"),
        "eomt_dinov3_large": _eomt(_vit(512, 100), 314_815_510, 59.5, "eomt-dinov3-ade-semantic-large-512", version=3),
    },
    "instances": {
        "mask2former_swin_tiny": _mask2former(_TINY, 47_421_643, 45.0, "tiny-coco-instance", _1K),
        "mask2former_swin_small": _mask2former(_SMALL, 68_739_547, 46.3, "small-coco-instance", _1K),
        "mask2former_swin_base": _mask2former(_BASE, 106_904_201, 46.7, "base-coco-instance", _1K),
        "mask2former_swin_large": _mask2former(_LARGE, 215_521_989, 50.1, "large-coco-instance", _21K, 200),
        "eomt_large": _eomt(_vit(640, 200), 316_641_361, 45.2, "coco_instance_eomt_large_640"),
        "eomt_dinov3_large": _eomt(_vit(640, 200), 314_978_385, 45.9, "eomt-dinov3-coco-instance-large-640", version=3),
    },
    "panoptic": {
        "mask2former_swin_tiny": _mask2former(_TINY, 47_435_264, 53.2, "tiny-coco-panoptic", _1K),
        "mask2former_swin_small": _mask2former(_SMALL, 68_753_168, 54.6, "small-coco-panoptic", _1K),
        "mask2former_swin_base": _mask2former(_BASE, 106_917_822, 55.1, "base-coco-panoptic", _1K),
        "mask2former_swin_large": _mask2former(_LARGE, 215_535_610, 57.8, "large-coco-panoptic", _21K, 200),
        "eomt_large": _eomt(_vit(640, 200), 316_695_686, 56.0, "coco_panoptic_eomt_large_640"),
        "eomt_dinov3_large": _eomt(_vit(640, 200), 315_032_710, 56.8, "eomt-dinov3-coco-panoptic-large-640", version=3),
    },
}
MEASURED = {
    "segment": (ADE, ADE),
    "instances": (COCO, VAL),
    "panoptic": (COCO, VAL),
}  # by task: what published weights learned from and were measured on


def listed(task: str) -> list[ModelRow]:
    """The rows of a task."""
    found = []
    for name, row in ROWS[task].items():
        figure = round(row.figure / 100, 3)
        measured, weights = MEASURED[task][1], row.repository
        found.append(ModelRow(name, "transformers", row.parameters, row.license, figure, measured, size=row.size, weights=weights))
    return found


def architecture(name: str, classes: int, channels: int) -> dict[str, Any]:
    """Plain JSON that rebuilds a network. softmax: classes share one inside of it, so that others change what is told of the rest."""
    return {"source": "transformers", "name": name, "arguments": {"classes": classes, "channels": channels}, "softmax": True}


def check(name: str) -> None:
    """Raise UserError where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{name} needs transformers, which is not installed", where="--model", fix="pip install 'saccade[transformers]'")


def check_license(task: str, name: str, allowed: Sequence[str]) -> None:
    """Raise UserError where the licence of published weights does not allow them to everybody, and it is not among those that the user
    allows."""
    license = ROWS[task][name].license
    if license in ASKED and not licenses.allowed(license, allowed):
        fix = f"where your use is allowed: --license {license}; or give other weights as --weights FILE"
        raise UserError(f"the weights of {name} are under {license}, {ASKED[license]}", where="--pretrained", fix=fix)


def links(task: str, name: str, file: Path) -> tuple[dict[str, str], ...]:
    """The licence chain of a row's published weights, which lie in `file`."""
    row = ROWS[task][name]
    source = f"https://huggingface.co/{row.repository}"
    own = licenses.link(row.repository, license=row.license, source=source, file=file, data=MEASURED[task][0])
    return dict(row.before), own
