"""Exports of transformers' detectors: any number of images of any size, with the proof, of networks that have hardly learned; and the rule
by which they choose queries among places that are as sure, without which the last bits would choose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import saccade
from saccade.core.progress import Silent
from saccade.objects.detr import narrowest, ranked
from saccade.objects.detr_rows import Row
from saccade.tasks.detection.models.detr_rows import ROWS
from small_detr import ALL, TINY, made, rows_in_small
from small_jobs import one_thread

__all__ = ["one_thread", "rows_in_small"]  # fixtures


def shallow(row: Row, **settings: Any) -> Row:
    return replace(row, settings={**row.settings, "decoder_layers": 1, "num_queries": 30, **settings})


SHALLOW = {
    "shallow_dfine": shallow(ROWS["dfine_n"], decoder_layers=2),
    "shallow_rtdetr": shallow(ROWS["rtdetr_v2_r18"]),
    "shallow_deimv2": shallow(ROWS["deimv2_atto"], decoder_layers=2),
    "tiny_deimv2": TINY["tiny_deimv2"],
    "tiny_rfdetr": TINY["tiny_rfdetr"],
}


@pytest.fixture(autouse=True, scope="module")
def shallow_rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, row in SHALLOW.items():
            patch.setitem(ROWS, name, row)
        yield


# The rule


def chosen(logits: torch.Tensor, count: int, *, training: bool = False) -> list[int]:
    """Places that the library would choose."""
    head = nn.Identity().train(training)
    head.register_forward_hook(ranked)
    return sorted(head(logits).max(-1).values.topk(count, dim=1).indices[0].tolist())


def test_of_places_that_are_as_sure_the_first_are_chosen() -> None:
    draws = torch.Generator().manual_seed(0)
    flat = torch.full((1, 8400, 3), -4.6) + 1e-6 * torch.randn(1, 8400, 3, generator=draws)
    flat[0, 5000, 1], flat[0, 8399, 2] = 3.0, -4.5
    assert chosen(flat, 300) == [*range(298), 5000, 8399]
    assert chosen(flat, 300, training=True) != chosen(flat, 300), "what is learned from are the scores as they are"
    steps = torch.linspace(-10, 10, 8400)[torch.randperm(8400, generator=draws)][None, :, None]
    kept = steps[0, chosen(steps, 300), 0]
    assert float(kept.min()) > float(steps.flatten().sort().values[-300]) - 1 / 32, "places that differ are chosen by their scores"
    assert chosen(torch.full((1, 50, 2), 1e6), 3) == [0, 1, 2] and chosen(torch.full((1, 50, 2), -1e6), 3) == [0, 1, 2]


@pytest.mark.parametrize("name", ALL)
def test_it_is_followed(name: str) -> None:
    """By networks that know nothing, on an image of one colour, whatever the last bits of their scores are."""
    network, _, _ = made(name)
    heads = [part for part in network.modules() if ranked in part._forward_hooks.values()]
    assert heads
    noise = torch.Generator()

    def shaken(head: nn.Module, given: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits + 1e-6 * torch.randn(logits.shape, generator=noise)

    for head in heads:
        head.register_forward_hook(shaken, prepend=True)
    images = torch.full((1, 3, 64, 64), 114, dtype=torch.uint8)
    with torch.no_grad():
        one, other = (network.eval()(images) for _ in range(2))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_narrow_images_are_padded_until_there_are_places() -> None:
    found = [narrowest(factor, strides, 300, 32) for factor, strides in ((1, (8, 16, 32)), (2, (8, 16, 32)), (1, (16, 32)), (3, (16,)))]
    assert found == [128, 64, 256, 96]
    network, _, _ = made("dfine_n")
    assert (network.factor, network.least) == (4, 64)
    images = torch.zeros(1, 3, 32, 160, dtype=torch.uint8)
    assert network._framed(images).shape == (1, 3, 64, 160)
    assert (network._framed(images)[:, :, 32:] == 114).all()


# The files


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three shapes, of one colour but for a square, in COCO's format with holes in its ids; read-only."""
    target, draws = tmp_path_factory.mktemp("squares") / "set", np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        (target / split).mkdir(parents=True)
        images, rows = [], []
        for number in range(count):
            height, width = ((64, 64), (64, 40), (30, 60))[number % 3]
            pixels = np.full((height, width, 3), 114, np.uint8)
            x, y = int(draws.integers(0, width - 20)), int(draws.integers(0, height - 20))
            pixels[y : y + 20, x : x + 20] = (230, 20, 20)
            Image.fromarray(pixels).save(target / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            box = {"bbox": [x, y, 20, 20], "area": 400, "iscrowd": 0}
            rows.append({"id": number, "image_id": number, "category_id": (1, 90)[number % 2], **box})
        (target / "annotations").mkdir(exist_ok=True)
        text = json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a"}, {"id": 90, "name": "b"}]})
        (target / f"annotations/instances_{split}.json").write_text(text)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_one_that_has_hardly_learned_is_exported_with_proof(name: str, squares: Path, tmp_path: Path) -> None:
    options: Any = {"model": name, "size": "64", "epochs": 1, "batch": 4, "device": "cpu", "seed": 1, "progress": Silent()}
    run = saccade.train(squares, out=tmp_path / "run", **options)
    exported = run.export(out=tmp_path / "onnx", progress=Silent())
    assert exported.passed, exported.facts["checks"]
    assert exported.facts["dynamic"] == ["batch", "height", "width"] and exported.facts["agreement"] == 1
    assert saccade.verify(exported.file, squares, progress=Silent()).passed  # type: ignore[arg-type]
    one, other = (saccade.load(target).card for target in (run.path, exported.file))  # type: ignore[arg-type]
    assert one.ids == other.ids == (1, 90)
