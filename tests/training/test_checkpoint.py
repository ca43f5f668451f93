"""The state of a run as files, and back."""

from __future__ import annotations

import pytest
import torch

from saccade.core.errors import UserError
from saccade.training import checkpoint


def test_there_and_back() -> None:
    groups = {
        "model": {"w": torch.randn(3, 4).T, "n": torch.tensor(7), "half": torch.randn(5).bfloat16(), "none": torch.empty(0, 3)},
        "optimizer-train": {},
        "tied": {"a": torch.ones(2), "b": torch.ones(2)},
    }
    state = {"loop": {"step": 3, "best": 0.1 + 0.2, "metrics": {"nll": None}}, "metrics_bytes": 12}
    files = checkpoint.encode(checkpoint.snapshot(groups), state)
    assert sorted(files) == ["model.safetensors", "optimizer-train.safetensors", "state.json", "tied.safetensors"]
    tensors, plain = checkpoint.decode(files, where="x")
    assert plain == state
    assert {name: set(group) for name, group in tensors.items()} == {name: set(group) for name, group in groups.items()}
    for name, group in groups.items():
        for key, value in group.items():
            assert tensors[name][key].dtype == value.dtype
            assert torch.equal(tensors[name][key], value), key


def test_the_files_hold_the_moment() -> None:
    weight = torch.ones(3)
    kept = checkpoint.snapshot({"model": {"w": weight}})
    weight.zero_()
    files = checkpoint.encode(kept, {})
    assert checkpoint.decode(files, where="x")[0]["model"]["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "files", [{}, {"state.json": b"{"}, {"state.json": b"{}", "model.safetensors": b"garbage"}, {"state.json": b"\xff\xfe"}]
)
def test_what_is_none_is_refused_in_one_line(files: dict[str, bytes]) -> None:
    with pytest.raises(UserError) as caught:
        checkpoint.decode(files, where="run/checkpoints")
    assert "run/checkpoints" in str(caught.value)
