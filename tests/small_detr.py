"""What the tests of transformers' detectors share: rows in small, networks that have seen images, a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saccade.core import keys
from saccade.core.card import Card, InputSpec
from saccade.core.config import override
from saccade.data.loader import Batch
from saccade.data.sample import Schema
from saccade.objects.detr_rows import DINOV3, Row, architecture
from saccade.task import Budget
from saccade.tasks.detection.models.detr_rows import ROWS
from saccade.tasks.detection.task import Detection

SCHEMA = Schema("detect", ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})
TASK = Detection()
# Of the families whose smallest row is too large for a quick test: as it, in small.
TINY = {
    "tiny_rfdetr": Row(
        "rf_detr",
        0,
        0.0,
        "nobody/tiny-rfdetr",
        {
            "model_type": "rf_detr_dinov2",
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 4,
            "image_size": 96,
            "patch_size": 16,
            "num_windows": 3,
            "out_indices": [2, 4],
            "use_mask_token": False,
        },
        {
            "d_model": 32,
            "decoder_ffn_dim": 64,
            "decoder_layers": 2,
            "decoder_self_attention_heads": 4,
            "decoder_cross_attention_heads": 4,
            "decoder_n_points": 2,
            "dropout": 0.0,
            "group_detr": 3,
            "num_queries": 40,
        },
    ),
    "tiny_deimv2": Row(
        "deimv2",
        0,
        0.0,
        "nobody/tiny-deimv2",
        {
            "model_type": "dinov3_vit",
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 4,
            "intermediate_size": 64,
            "num_register_tokens": 0,
            "out_indices": [2, 3, 4],
            "apply_layernorm": False,
            "key_bias": True,
            "pos_embed_rescale": None,
        },
        {
            "encoder_hidden_dim": 32,
            "encoder_in_channels": [32] * 3,
            "encoder_ffn_dim": 64,
            "depth_mult": 0.34,
            "hidden_expansion": 0.5,
            "d_model": 32,
            "decoder_in_channels": [32] * 3,
            "decoder_ffn_dim": 64,
            "decoder_layers": 2,
            "encoder_has_trailing_conv": False,
            "num_queries": 40,
        },
        DINOV3,
    ),
}
LIGHT = ("dfine_n", "rtdetr_v2_r18")
ALL = (*LIGHT, "deimv2_atto", *TINY)
TINY_MASKS = replace(
    TINY["tiny_rfdetr"],
    repository="nobody/tiny-rfdetr-seg",
    backbone={**TINY["tiny_rfdetr"].backbone, "patch_size": 12, "image_size": 72},
    settings={**TINY["tiny_rfdetr"].settings, "class_loss_coefficient": 5.0, "intermediate_size": 64},
    masks=True,
)
# In their authors' files, one of each kind: the family, what it is called there, and what by transformers, which has several for some.
NAMES = [line.split() for line in (Path(__file__).parent / "tasks/detection/detr_names.txt").read_text().splitlines()]


@pytest.fixture(autouse=True, scope="module")
def rows_in_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, row in TINY.items():
            patch.setitem(ROWS, name, row)
        yield


def made(name: str, **changes: Any) -> tuple[Any, Card, Any]:
    config, _ = TASK.recipe(SCHEMA, "cpu", Budget(model=name, size=(64, 64), epochs=1))
    config = override(config, {"device": "cpu", "precision": "fp32", **changes})
    TASK.check(config)
    torch.manual_seed(0)
    network, card = TASK.create(config, SCHEMA)
    return network, card, config


@cache
def shaken(name: str) -> tuple[Any, Card]:
    """A network in evaluation whose answers differ from place to place, as they do once it has learned; tests leave it as it is."""
    network, card, _ = made(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics are the mean over what comes by
        network.train()(torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8))
    return network.eval(), card


def rebuild(name: str, classes: int) -> nn.Module:
    spec = InputSpec(3, (64, 64), "fit", (0.0,) * 3, (1.0,) * 3)
    return TASK.build(Card("detect", tuple(map(str, range(classes))), architecture(name, classes=classes, channels=3), spec))


def example(n: int) -> Batch:
    return TASK.example(n, keys.generator(0, "detr", 0))
