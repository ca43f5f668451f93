"""The detectors of transformers, by name: their configurations, and what is published of them. Neither torch nor transformers is imported.

Sizes are those of the authors' configurations (github.com/lyuwenyu/RT-DETR, rtdetrv2_pytorch; github.com/Peterande/D-FINE;
github.com/roboflow/rf-detr; github.com/Intellindust-AI-Lab/DEIMv2), box AP on COCO val2017 that of their READMEs, for weights learned from
COCO, of RF-DETR after Objects365. All code is under the Apache License 2.0, and so are the weights, but for those of DEIMv2 that descend
from DINOv3 (L and X begin from its weights, S and M from smaller networks taught by it): the terms of Meta's licence are theirs too.
RF-DETR XL and 2XL are not here, as customers of a platform alone may use them.
"""

from __future__ import annotations

from typing import Any

from saccade.objects.detr_rows import DINOV3, Row


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


def _light(out: int, blocks: int, kernel: int) -> dict[str, Any]:
    """The network of the smallest DEIMv2: the first three stages of HGNetV2, the last one `out` channels wide."""
    return {
        "model_type": "hgnet_v2",
        "out_indices": [3],
        "depths": [3, 3, 3],
        "hidden_sizes": [64, 256, out],
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 64, 256],
        "stage_mid_channels": [16, 32, 64],
        "stage_out_channels": [64, 256, out],
        "stage_num_blocks": [1, 1, blocks],
        "stage_downsample": [False, True, True],
        "stage_downsample_strides": [2, 2, 2],
        "stage_light_block": [False, False, True],
        "stage_kernel_size": [3, 3, kernel],
        "stage_numb_of_layers": [3, 3, 3],
        "use_learnable_affine_block": True,
    }


def _lite(width: int, ffn: int, queries: int, channels: int) -> dict[str, Any]:
    """Settings of the smallest DEIMv2 on a map of so many `channels`."""
    return {
        "encoder_type": "lite",
        "encoder_layers": 0,
        "encoder_hidden_dim": width,
        "encoder_in_channels": [channels],
        "feat_strides": [16, 32],
        "hidden_expansion": 0.34,
        "depth_mult": 0.5,
        "d_model": width,
        "num_feature_levels": 2,
        "decoder_in_channels": [width, width],
        "decoder_n_points": [4, 2],
        "decoder_layers": 3,
        "decoder_ffn_dim": ffn,
        "num_queries": queries,
        "share_bbox_head": True,
        "use_gateway": False,
    }


def _dino(width: int, heads: int, *, stages: tuple[int, ...] = (6, 9, 12)) -> dict[str, Any]:
    """The network of the larger DEIMv2: a small DINOv3."""
    found = {"model_type": "dinov3_vit", "hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    return found | {"out_indices": list(stages), "num_register_tokens": 4, "layerscale_value": 1e-5}


def _taught(width: int, heads: int) -> dict[str, Any]:
    """A smaller network taught by DINOv3, without its registers and scales."""
    plain = {"num_register_tokens": 0, "layerscale_value": 1.0, "key_bias": True, "layer_norm_eps": 1e-6}
    return _dino(width, heads, stages=(4, 8, 12)) | plain | {"apply_layernorm": False, "pos_embed_rescale": None}


def _on_dino(width: int, ffn: int, layers: int) -> dict[str, Any]:
    """Settings of the larger DEIMv2."""
    found = {"encoder_hidden_dim": width, "encoder_in_channels": [width] * 3, "decoder_in_channels": [width] * 3, "d_model": width}
    return found | {"decoder_ffn_dim": ffn, "decoder_layers": layers, "encoder_has_trailing_conv": False, **_POINTS}


def _windows(side: int, *, patch: int = 16, windows: int = 2, stages: tuple[int, ...] = (3, 6, 9, 12)) -> dict[str, Any]:
    """The network of RF-DETR: a small DINOv2 of patches, most layers of which look at a few windows each, with places for side x side."""
    found = {"model_type": "rf_detr_dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": side, "patch_size": patch}
    return found | {"num_windows": windows, "out_indices": list(stages), "use_mask_token": False}


_SMALL = _hgnet((16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3, affine=True)
_POINTS = {"decoder_n_points": [3, 6, 3]}
_PAIRS = {"decoder_n_points": 2, "dropout": 0.0, "layer_norm_eps": 1e-6}
# Two levels of half the usual width: the smallest of D-FINE, and of DEIMv2 that is like it.
_NANO = {
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
}

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
        _NANO,
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
    "deimv2_atto": Row(
        "deimv2",
        508_984,
        23.8,
        "Intellindust/DEIMv2_HGNetv2_ATTO_COCO",
        _light(256, 1, 3),
        _lite(64, 160, 100, 256),
        side=320,
    ),
    "deimv2_femto": Row(
        "deimv2",
        983_944,
        31.0,
        "Intellindust/DEIMv2_HGNetv2_FEMTO_COCO",
        _light(512, 1, 5),
        _lite(96, 256, 150, 512),
        side=416,
    ),
    "deimv2_pico": Row("deimv2", 1_539_538, 38.5, "Intellindust/DEIMv2_HGNetv2_PICO_COCO", _light(512, 2, 5), _lite(112, 320, 200, 512)),
    "deimv2_n": Row(
        "deimv2",
        3_600_420,
        43.0,
        "Intellindust/DEIMv2_HGNetv2_N_COCO",
        {**_SMALL, "out_indices": [3, 4]},
        _NANO,
    ),
    "deimv2_s": Row(
        "deimv2",
        9_779_837,
        50.9,
        "Intellindust/DEIMv2_DINOv3_S_COCO",
        _taught(192, 3),
        _on_dino(192, 512, 4) | {"encoder_ffn_dim": 512, "depth_mult": 0.67, "hidden_expansion": 0.34},
        DINOV3,
    ),
    "deimv2_m": Row(
        "deimv2",
        18_357_749,
        53.0,
        "Intellindust/DEIMv2_DINOv3_M_COCO",
        _taught(256, 4),
        _on_dino(256, 512, 4) | {"encoder_ffn_dim": 512, "hidden_expansion": 0.67},
        DINOV3,
    ),
    "deimv2_l": Row(
        "deimv2",
        32_546_221,
        56.0,
        "Intellindust/DEIMv2_DINOv3_L_COCO",
        _dino(384, 6),
        _on_dino(224, 1792, 4) | {"encoder_ffn_dim": 896, "spatial_tuning_adapter_inplanes": 32},
        DINOV3,
    ),
    "deimv2_x": Row(
        "deimv2",
        51_206_743,
        57.8,
        "Intellindust/DEIMv2_DINOv3_X_COCO",
        _dino(384, 6) | {"use_gated_mlp": True, "hidden_act": "silu"},
        _on_dino(256, 2048, 6) | {"hidden_expansion": 1.25, "depth_mult": 1.37, "spatial_tuning_adapter_inplanes": 64},
        DINOV3,
    ),
    "rfdetr_nano": Row("rf_detr", 30_427_336, 48.4, "Roboflow/rf-detr-nano", _windows(384), {"decoder_layers": 2, **_PAIRS}, side=384),
    "rfdetr_small": Row("rf_detr", 32_071_208, 53.0, "Roboflow/rf-detr-small", _windows(512), {"decoder_layers": 3, **_PAIRS}, side=512),
    "rfdetr_medium": Row("rf_detr", 33_647_496, 54.7, "Roboflow/rf-detr-medium", _windows(576), {"decoder_layers": 4, **_PAIRS}, side=576),
    "rfdetr_base": Row(
        "rf_detr",
        32_134_568,
        53.3,
        "Roboflow/rf-detr-base",
        _windows(518, patch=14, windows=4, stages=(2, 5, 8, 11)),
        {"decoder_layers": 3, **_PAIRS},
        side=560,
    ),
    "rfdetr_large": Row("rf_detr", 33_893_256, 56.5, "Roboflow/rf-detr-large", _windows(704), {"decoder_layers": 4, **_PAIRS}, side=704),
}
