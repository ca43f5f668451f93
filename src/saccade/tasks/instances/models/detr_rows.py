"""RF-DETR with masks, by name. Neither torch nor transformers is imported.

Sizes are those of the authors' configurations (github.com/roboflow/rf-detr, rfdetr/config.py; L has as many queries as its weights),
mask AP on COCO val2017 that of their README, for weights learned from Objects365 and COCO. Code and weights of all sizes are under the
Apache License 2.0, other than those of the detectors.
"""

from __future__ import annotations

from saccade.objects.detr_rows import Row


def _row(size: str, parameters: int, ap: float, side: int, shape: tuple[int, int, int]) -> Row:
    """One of them: its weights have places for side x side pixels; shape: windows, layers of the decoder, queries."""
    windows, layers, queries = shape
    backbone = {"model_type": "rf_detr_dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": side, "patch_size": 12}
    backbone |= {"num_windows": windows, "out_indices": [3, 6, 9, 12], "use_mask_token": False}
    settings = {"decoder_layers": layers, "num_queries": queries, "decoder_n_points": 2, "dropout": 0.0, "layer_norm_eps": 1e-6}
    settings |= {"class_loss_coefficient": 5.0}
    return Row("rf_detr", parameters, ap, f"Roboflow/rf-detr-seg-{size}", backbone, settings, masks=True, side=side)


ROWS = {
    "rfdetr_seg_nano": _row("nano", 33537513, 40.3, 312, (1, 4, 100)),
    "rfdetr_seg_small": _row("small", 33671145, 43.1, 384, (2, 4, 100)),
    "rfdetr_seg_medium": _row("medium", 35654297, 45.3, 432, (2, 5, 200)),
    "rfdetr_seg_large": _row("large", 36172009, 47.1, 504, (2, 5, 300)),
    "rfdetr_seg_xlarge": _row("xlarge", 38073673, 48.8, 624, (2, 6, 300)),
    "rfdetr_seg_2xlarge": _row("xxlarge", 38608201, 49.9, 768, (2, 6, 300)),
}
