"""The state of a run as files, and back."""

from __future__ import annotations

import pytest
import torch

from saccade.core.errors import UserError
from saccade.nn import weights
from saccade.training import checkpoint
from saccade.training.state import Saved, State

STATE = b'{"loop": {}, "metrics_bytes": 0, "scaler": {}}'


def test_there_and_back() -> None:
    groups = {
        "model": {"w": torch.randn(3, 4).T, "n": torch.tensor(7), "half": torch.randn(5).bfloat16(), "none": torch.empty(0, 3)},
        "optimizer-train": {},
        "tied": {"a": torch.ones(2), "b": torch.ones(2)},
    }
    loop = State(3, 18, 0.1 + 0.2, 2, {"nll": None, "accuracy": 1.0}, 0, {"loss": 0.5}, {"loss": 3})
    files = checkpoint.encode(checkpoint.snapshot(groups), {"loop": vars(loop), "metrics_bytes": 12, "scaler": {}})
    assert sorted(files) == ["model.safetensors", "optimizer-train.safetensors", "state.json", "tied.safetensors"]
    buffers, saved = checkpoint.decode(files, groups, where="x")
    assert saved == Saved(loop, 12, {})
    tensors = {name: weights.from_buffers(group) for name, group in buffers.items()}
    assert {name: set(group) for name, group in tensors.items()} == {name: set(group) for name, group in groups.items()}
    for name, group in groups.items():
        for key, value in group.items():
            assert tensors[name][key].dtype == value.dtype
            assert torch.equal(tensors[name][key], value), key


def test_the_files_hold_the_moment() -> None:
    weight = torch.ones(3)
    kept = checkpoint.snapshot({"model": {"w": weight}})
    weight.zero_()
    assert weights.from_buffers(kept["model"])["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model.safetensors": b"", "state.json": b"{"},
        {"model.safetensors": b"garbage", "state.json": STATE},
        {"model.safetensors": b"", "state.json": b"\xff\xfe"},
        {"state.json": STATE},
        {"model.safetensors": b"", "state.json": STATE, "more.safetensors": b""},
    ],
)
def test_what_is_none_is_refused_in_one_line(files: dict[str, bytes]) -> None:
    with pytest.raises(UserError) as caught:
        checkpoint.decode(files, ["model"], where="run/checkpoints")
    assert "run/checkpoints" in str(caught.value)
