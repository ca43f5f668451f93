"""Devices and number formats: what is not there is said in one line."""

from __future__ import annotations

import pytest
import torch

from saccade.core.errors import UserError
from saccade.training import precision


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "gpu", "", "cpu:x", "cuda:", "cuda:-1", "cuda:x", "tpu", "CPU", "cuda\n0"])
def test_what_is_not_there_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        precision.device(name)
    assert caught.value.where == "--device"
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("nothing")
def test_auto_without_accelerator() -> None:
    assert precision.device("auto") == precision.device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("two_gpus")
def test_devices_that_are_there() -> None:
    assert precision.device("auto").type == "cuda"
    assert precision.device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="no cuda:2 device"):
        precision.device("cuda:2")


def test_auto_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert [precision.resolve("auto", on) for on in (cpu, cuda)] == ["fp32", "bf16"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert precision.resolve("auto", cuda) == "fp32"
    assert precision.resolve("bf16", cpu) == "bf16"
    assert precision.resolve("fp16", cuda) == "fp16"
    with pytest.raises(UserError, match="fp16 needs a CUDA device"):
        precision.resolve("fp16", cpu)


def test_who_is_open_to_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert not precision.open_to_bf16("auto", cpu), "a processor without instructions for it"
        monkeypatch.setattr(torch.cpu, name, lambda: True)
        assert [precision.open_to_bf16(asked, on) for asked, on in (("auto", cpu), ("fp32", cpu), ("auto", cuda))] == [True, False, False]


@pytest.mark.parametrize(("number", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(number: str, dtype: torch.dtype) -> None:
    with precision.autocast(number, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_only_fp16_is_scaled() -> None:
    assert not precision.scaler("fp32").is_enabled()
    assert not precision.scaler("bf16").is_enabled()
