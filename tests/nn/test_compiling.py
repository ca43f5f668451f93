"""Where torch.compile does not work, one line says so before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import saccade
from saccade import UserError
from saccade.core.progress import Silent
from saccade.nn import compiling


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object) -> object:
        def call(value: object) -> None:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nin torch._inductor.config.cpp.cxx")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(UserError, match=r"--compile: torch.compile does not work here: InvalidCxxCompiler.*g\+\+"):
        compiling.check(torch.device("cpu"))


@pytest.mark.parametrize(("more", "said"), [({"task": "generate"}, "differentiated twice"), ({"shard": True}, "--shard")])
def test_what_cannot_be_compiled(tmp_path: Path, more: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        saccade.train(tmp_path / "nosuch", compile=True, progress=Silent(), **more)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.processes
def test_what_is_compiled_answers_alike() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    x = torch.randn(3, 4)
    before = network(x)
    compiling.check(torch.device("cpu"))
    compiling.compiled(network)
    assert torch.allclose(network(x), before, atol=1e-6)
    assert sorted(network.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
