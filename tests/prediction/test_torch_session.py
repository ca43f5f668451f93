"""The session around a torch module: NumPy in and out, the module itself untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from saccade.core.card import Card, InputSpec
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.classification.decode import decode
from saccade.tasks.classification.task import MEAN, STD, Classification

ARGUMENTS = {"classes": 3, "channels": 3, "width": 8, "blocks": [1, 1], "stem_stride": 1, "dropout": 0.5}
CARD = Card(
    "classify", ("a", "b", "c"), {"source": "saccade", "name": "x", "arguments": ARGUMENTS}, InputSpec(3, (17, 11), "crop", MEAN, STD)
)


def module() -> nn.Module:
    torch.manual_seed(0)
    made = Classification().build(CARD)
    nn.init.normal_(made.network.head.weight)
    return made


def session(network: nn.Module, precision: str = "fp32") -> TorchSession:
    return TorchSession(network, CARD, lambda outputs, size: decode(outputs), precision=precision)


def images(n: int = 5) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.Philox(1)).integers(0, 255, (n, 3, 17, 11), dtype=np.uint8)


def test_answers_are_those_of_the_module() -> None:
    network = module().eval()
    found = session(network).run(images())["probabilities"]
    assert found.dtype == np.float32
    assert found.flags.owndata or found.base is not None
    with torch.no_grad():
        expected = network(torch.from_numpy(images())).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    assert session(module()).run(images(n))["probabilities"].shape == (n, 3)


@pytest.mark.filterwarnings("error")
def test_any_strides_and_read_only_arrays() -> None:
    answers = session(module())
    expected = answers.run(images())["probabilities"]
    rows = np.ascontiguousarray(images().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    backwards = images()[::-1].copy()[::-1]
    fixed = images()
    fixed.flags.writeable = False
    for same in (rows, backwards, fixed):
        np.testing.assert_allclose(answers.run(same)["probabilities"], expected, atol=1e-6)


def test_a_module_in_training_keeps_its_strides_statistics_and_gradients() -> None:
    network = module().train()
    before = {name: (value.clone(), value.stride()) for name, value in network.state_dict().items()}
    first = session(network).run(images())["probabilities"]
    network.train()
    second = session(network).run(images())["probabilities"]
    np.testing.assert_array_equal(first, second, err_msg="dropout is off, whatever mode the module came in")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name][0]), name
        assert value.stride() == before[name][1], name
    network(torch.from_numpy(images())).sum().backward()


def test_half_precision_is_near_and_comes_out_as_float32() -> None:
    network = module()
    exact = session(network).run(images())["probabilities"]
    half = session(network, "bf16").run(images())["probabilities"]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, exact, atol=0.03)
    assert not np.array_equal(half, exact)


def test_decode_gets_the_size_of_the_input_and_names_the_outputs() -> None:
    def two(outputs: torch.Tensor, size: tuple[int, int]) -> dict[str, torch.Tensor]:
        return {"logits": outputs, "height": torch.full((len(outputs),), size[0])}

    found = TorchSession(module(), CARD, two).run(images(2))
    assert sorted(found) == ["height", "logits"]
    assert found["height"].tolist() == [17, 17]
