"""RF-DETR and DEIMv2: the same networks as the authors', whatever the size of an image, from files as the authors name what is in them."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saccade.core import modelfile
from saccade.core.config import override
from saccade.core.errors import UserError
from saccade.editing.blocks import Followed
from saccade.editing.steps import Adapt, Draws, Factor, Merge
from saccade.editing.steps.base import put
from saccade.nn import pretrained, weights
from saccade.objects.detr import ranked
from saccade.tasks.detection.models.detr_rows import ROWS
from small_detr import NAMES, TASK, TINY, made, rebuild, rows_in_small, shaken

__all__ = ["rows_in_small"]  # a fixture


@pytest.mark.parametrize("name", TINY)
def test_published_weights_of_the_other_families(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    theirs: Any = rebuild(name, 80)
    file = tmp_path / "model.safetensors"
    file.write_bytes(modelfile.pack(weights.to_buffers(theirs.network), {"format": "pt"}))
    monkeypatch.setattr(pretrained, "downloaded", lambda repo, name, revision: file)
    network, card, _ = made(name, pretrained=True, license=("dinov3-license",))
    assert [link["license"] for link in card.licenses] == [ROWS[name].license]
    state = theirs.state_dict()
    other = [key for key, value in network.state_dict().items() if not torch.equal(value, state[key])]
    assert other and all("class_embed." in key or "enc_score_head." in key for key in other)


def test_weights_that_descend_from_dinov3_are_asked_for() -> None:
    with pytest.raises(UserError, match="descend from Meta's DINOv3") as caught:
        made("deimv2_s", pretrained=True)
    assert "--license dinov3-license" in caught.value.fix
    TASK.check(override(made("tiny_deimv2")[2], {"model": "deimv2_s", "pretrained": True, "license": ("dinov3-license",)}))
    TASK.check(override(made("tiny_deimv2")[2], {"model": "deimv2_n", "pretrained": True}))


@pytest.mark.parametrize(("name", "family"), [("deimv2_atto", "deimv2"), ("tiny_deimv2", "deimv2"), ("tiny_rfdetr", "rf_detr")])
def test_names_in_the_files_of_the_authors(name: str, family: str) -> None:
    """One of each kind, as their own code gives them (Intellindust-AI-Lab/DEIMv2 0fff8d4, roboflow/rf-detr 35ac6ab), and what these tensors
    are called by transformers, which has several for some."""
    network, _, _ = made(name)
    pairs = [(old, new) for kind, old, *new in NAMES if kind == family]
    if name == "tiny_deimv2":  # the names are those of the smallest, which has these elsewhere
        pairs = [(old, [one.replace("encoder.input", "conv_encoder.encoder_input") for one in new]) for old, new in pairs]
    assert len(pairs) > 40
    for old, new in pairs:
        values = torch.arange(12.0).reshape(6, 2)
        found = network.translated(weights.to_buffers({old: values}))
        assert list(found) == [f"network.{one}" for one in new], old
        parts = weights.from_buffers(found).values()
        assert torch.equal(torch.cat(list(parts)), values), old


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("deimv2_atto", (384, 448), [-0.07894, 0.43007, 0.47961, 0.54641, 0.10241, 0.10711]),
        ("deimv2_s", (384, 448), [-0.04644, 0.60794, 0.47426, 0.49389, 0.05274, 0.05985]),
        ("rfdetr_nano", (384, 384), [-0.0014, 0.79753, 0.52518, 0.47621, 0.05728, 0.04908]),
    ],
)
def test_the_authors_own_code_gives_the_same(name: str, side: tuple[int, int], expected: list[float]) -> None:
    """Mean and deviation of the logits and the mean box (x, y, width, height), of the authors' networks with these weights; without our
    rule for queries that are as sure, as these weights make many."""
    network: Any = rebuild(name, 80).eval()
    for part in network.modules():
        for key in [key for key, hook in part._forward_hooks.items() if hook is ranked]:
            del part._forward_hooks[key]
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point() and not key.endswith(".up"):
                drawn = 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
                value.copy_(1 + drawn if value.ndim == 1 and "running_mean" not in key and not key.endswith("bias") else drawn)
        found = network.network(torch.rand(1, 3, *side, generator=torch.Generator().manual_seed(0)))
    told = [found.logits.mean(), found.logits.std(), *found.pred_boxes.mean((0, 1))]
    assert [float(one) for one in told] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("name", TINY)
def test_queries_are_ranked_by_whatever_an_edit_puts_there(name: str) -> None:
    """By all of LoRA's logits and not by ranks to which its own are added; merged, factored or followed by something too."""
    network, _, _ = made(name)
    place = next(key for key, part in network.named_modules() if ranked in part._forward_hooks.values())
    x = torch.randn(2, 50, network.get_submodule(place).in_features, generator=torch.Generator().manual_seed(0))

    def follow() -> None:
        put(network, place, Followed(network.get_submodule(place), nn.GELU()))

    adapt, merge, factor = (partial(one.apply, network, Draws(0, 0)) for one in (Adapt(place, 1), Merge(place), Factor(place, 2)))
    for edit in (adapt, merge, factor, follow):
        edit()
        head = network.get_submodule(place)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            logits = head.train()(x)
            found = head.eval()(x)
        assert logits.shape == (2, 50, 3) and torch.equal(found, ranked(head, None, logits)), type(head).__name__


def test_windows_are_parts_of_the_image() -> None:
    """As the library cuts a square, and each in one piece where it does not; put together again to the map that it was."""
    from transformers.models.rf_detr.modeling_rf_detr import RfDetrDinov2Embeddings

    network, _, _ = made("tiny_rfdetr")
    backbone: Any = network.network.model.backbone.backbone
    for down, across in ((6, 6), (3, 12), (9, 6)):
        tokens = torch.cat([torch.full((2, 1, 1), -1.0), torch.arange(2.0 * down * across).reshape(2, -1, 1)], 1)
        windows = backbone.embeddings.window_partition(tokens, 16 * down, 16 * across)
        assert windows.shape == (2 * 9, 1 + down * across // 9, 1) and (windows[:, 0] == -1).all()
        if down == across:
            assert torch.equal(windows, RfDetrDinov2Embeddings.window_partition(backbone.embeddings, tokens, 16 * down, 16 * across))
        places = windows[:9, 1:, 0]
        for part in places:
            rows, columns = part // across, part % across
            assert rows.max() - rows.min() == down // 3 - 1 and columns.max() - columns.min() == across // 3 - 1
        whole = backbone.window_unpartition(windows[:, 1:], 16 * down, 16 * across).reshape(2, -1, 1)
        assert torch.equal(whole, tokens[:, 1:])


def test_what_it_divides_by_is_padded_inside() -> None:
    """With the grey that images are padded with, whatever the size; boxes are told in pixels of the input all the same."""
    network, _ = shaken("tiny_rfdetr")
    images = torch.randint(0, 256, (1, 3, 64, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = nn.functional.pad(images, (0, 32, 0, 32), value=114)
    assert network.multiple == 48 and whole.shape[2:] == (96, 192)
    with torch.no_grad():
        assert torch.equal(network(images), network(whole))
