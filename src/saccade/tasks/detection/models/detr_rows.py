"""The detectors of transformers, by name: their configurations, and what is published of them. Neither torch nor transformers is imported.

Sizes are those of the authors' configurations (github.com/lyuwenyu/RT-DETR, rtdetrv2_pytorch; github.com/Peterande/D-FINE), box AP on COCO
val2017 that of their READMEs, for weights learned from COCO alone; all are under the Apache License 2.0, weights and code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.core.errors import UserError

FAMILIES = {"rt_detr_v2": "RTDetrV2", "d_fine": "DFine"}  # by transformers' name of its folder: how its classes' names begin


@dataclass(frozen=True)
class Row:
    """family: one of FAMILIES; backbone, settings: what differs from the defaults of its configuration; parameters: with 80 classes and
    three channels (a test holds them true); ap: box AP on COCO val2017, in hundredths; repository: of the weights, on the Hugging Face hub.
    """

    family: str
    parameters: int
    ap: float
    repository: str
    backbone: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _resnet(depths: tuple[int, ...], kind: str) -> dict[str, Any]:
    """The network of RT-DETR: widths as ResNets have them, by kind of block."""
    widths = (64, 128, 256, 512) if kind == "basic" else (256, 512, 1024, 2048)
    return {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4], "depths": depths, "hidden_sizes": widths, "layer_type": kind}


def _hgnet(
    stem: tuple[int, int],
    middle: tuple[int, ...],
    out: tuple[int, ...],
    blocks: tuple[int, ...],
    layers: int,
    *,
    affine: bool = False,
) -> dict[str, Any]:
    """The network of D-FINE (HGNetV2 of PaddleClas): channels of the stem, then of the four stages inside and behind, and their depth."""
    return {
        "model_type": "hgnet_v2",
        "out_indices": [2, 3, 4],
        "stem_channels": [3, *stem],
        "stage_in_channels": [stem[1], *out[:3]],
        "stage_mid_channels": list(middle),
        "stage_out_channels": list(out),
        "stage_num_blocks": list(blocks),
        "stage_numb_of_layers": [layers] * 4,
        "use_learnable_affine_block": affine,
        "hidden_sizes": list(out),
    }


def _of(width: int) -> dict[str, Any]:
    """Settings of an encoder of another width than 256."""
    return {"encoder_hidden_dim": width, "decoder_in_channels": [width] * 3}


_SMALL = _hgnet((16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3, affine=True)
_POINTS = {"decoder_n_points": [3, 6, 3]}

ROWS = {
    "rtdetr_v2_r18": Row(
        "rt_detr_v2",
        20_184_464,
        48.1,
        "PekingU/rtdetr_v2_r18vd",
        _resnet((2, 2, 2, 2), "basic"),
        {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 3},
    ),
    "rtdetr_v2_r34": Row(
        "rt_detr_v2",
        31_441_668,
        49.9,
        "PekingU/rtdetr_v2_r34vd",
        _resnet((3, 4, 6, 3), "basic"),
        {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 4},
    ),
    "rtdetr_v2_r50": Row("rt_detr_v2", 42_944_620, 53.4, "PekingU/rtdetr_v2_r50vd", _resnet((3, 4, 6, 3), "bottleneck")),
    "rtdetr_v2_r101": Row(
        "rt_detr_v2",
        76_661_740,
        54.3,
        "PekingU/rtdetr_v2_r101vd",
        _resnet((3, 4, 23, 3), "bottleneck"),
        {"encoder_ffn_dim": 2048, **_of(384)},
    ),
    "dfine_n": Row(
        "d_fine",
        3_782_693,
        42.8,
        "ustc-community/dfine-nano-coco",
        {**_SMALL, "out_indices": [3, 4]},
        {
            "num_feature_levels": 2,
            "feat_strides": [16, 32],
            "encode_proj_layers": [1],
            "encoder_in_channels": [512, 1024],
            "encoder_hidden_dim": 128,
            "encoder_ffn_dim": 512,
            "hidden_expansion": 0.34,
            "depth_mult": 0.5,
            "d_model": 128,
            "decoder_in_channels": [128, 128],
            "decoder_ffn_dim": 512,
            "decoder_layers": 3,
            "decoder_n_points": [6, 6],
        },
    ),
    "dfine_s": Row(
        "d_fine",
        10_321_877,
        48.5,
        "ustc-community/dfine-small-coco",
        _SMALL,
        {"encoder_in_channels": [256, 512, 1024], "hidden_expansion": 0.5, "depth_mult": 0.34, "decoder_layers": 3, **_POINTS},
    ),
    "dfine_m": Row(
        "d_fine",
        19_590_064,
        52.3,
        "ustc-community/dfine-medium-coco",
        _hgnet((24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4, affine=True),
        {"encoder_in_channels": [384, 768, 1536], "depth_mult": 0.67, "decoder_layers": 4, **_POINTS},
    ),
    "dfine_l": Row(
        "d_fine",
        31_289_848,
        54.0,
        "ustc-community/dfine-large-coco",
        _hgnet((32, 48), (48, 96, 192, 384), (128, 512, 1024, 2048), (1, 1, 3, 1), 6),
        _POINTS,
    ),
    "dfine_x": Row(
        "d_fine",
        62_715_480,
        55.8,
        "ustc-community/dfine-xlarge-coco",
        _hgnet((32, 64), (64, 128, 256, 512), (128, 512, 1024, 2048), (1, 2, 5, 2), 6),
        {"encoder_ffn_dim": 2048, **_of(384), **_POINTS},
    ),
}


def check(name: str) -> None:
    """Raise UserError where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{name} needs transformers, which is not installed", where="--model", fix="pip install 'saccade[transformers]'")
