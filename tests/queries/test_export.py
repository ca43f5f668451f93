"""EoMT and Mask2Former, and our own network of things and stuff, as ONNX, for images of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from saccade.data.sample import Schema
from saccade.exporting import graph, onnx
from saccade.task import Budget
from saccade.tasks import answering
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here
from tiny_queries import tiny  # noqa: F401  a fixture


def made(task: str, name: str) -> tuple[Any, Any, graph.Graph]:
    room: Any = answering(task, "this test")
    schema = Schema(task, ("a", "b", "c"), {"train": (80, 80, 80)}, 3, (64, 64), True, {"train": 240, "val": 6})
    config, _ = room.recipe(schema, "cpu", Budget(model=name, size=(64, 96), epochs=1))
    torch.manual_seed(0)
    network, card = room.create(config, schema)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return room, network, graph.assemble(network, room.decode, card)


def compared(file: bytes, room: Any, network: Any, shipped: graph.Graph, size: tuple[int, int]) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = room.decode(network.eval()(images), size)
    for name, told in zip(shipped.names, session.run(None, {"images": images.numpy()}), strict=True):
        if name in ("logits", "scores", "prototypes", "classes", "masks", "pixels"):
            np.testing.assert_allclose(told, wanted[name].numpy(), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("task", "name"),
    [("segment", "eomt_large"), ("instances", "eomt_dinov3_large"), ("panoptic", "mask2former_swin_tiny"), ("panoptic", "small_panoptic")],
)
def test_any_size_and_number_of_images(task: str, name: str) -> None:
    """The same as torch, for images of another size than the file was made at."""
    room, network, shipped = made(task, name)
    files, axes = onnx.write(shipped, "fp32")
    assert list(axes) == ["batch", "height", "width"]
    for size in ((64, 96), (96, 160)):
        compared(files["model.onnx"], room, network, shipped, size)
