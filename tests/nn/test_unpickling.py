"""Pickled weights: opened in a process that can do nothing else; what is hostile, broken or no weights is refused in one line."""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import subprocess
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.core.errors import UserError
from saccade.nn.unpickling import unpickled
from saccade.nn.unpickling_process import NoWeightsError, buffers, state

pytestmark = pytest.mark.processes
LANDLOCKED = sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1  # what version the kernel has


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "beside weights"])
def test_a_hostile_file_runs_nothing(kind: str, tmp_path: Path) -> None:
    evil, file = Evil(f"touch {tmp_path / 'owned'}"), tmp_path / "evil.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(evil))
    else:
        content = {"state_dict": {"w": torch.zeros(2)}, "args": evil} if kind == "beside weights" else evil
        torch.save(content, file, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(UserError, match="holds more than weights") as caught:
        unpickled(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


def test_the_process_can_reach_nothing(tmp_path: Path) -> None:
    """Whatever got past the unpickler: no file, no socket, no program."""
    (tmp_path / "a").write_bytes(b"kept")
    code = """
import os, socket
from saccade.nn import unpickling_process
unpickling_process._warm()
unpickling_process._limit(1000)
def tries():
    yield lambda: open("/etc/hostname")
    yield lambda: os.close(os.open("/dev/null", os.O_WRONLY))
    yield socket.socket
    yield lambda: os.unlink("a")
    yield lambda: os.rename("a", "b")
    yield lambda: os.truncate("a", 0)
    yield lambda: os.mkdir("c")
    yield lambda: os.execv("/bin/true", ["/bin/true"])
    yield lambda: bytearray(2 << 30)
for one in tries():
    try:
        one()
    except (OSError, MemoryError) as error:
        print(type(error).__name__, flush=True)
    else:
        print("done", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    said = done.stdout.split()
    assert said[:3] == ["OSError"] * 3
    if LANDLOCKED:
        assert said[3:7] == ["PermissionError"] * 4 and "done" not in said
        assert (tmp_path / "a").read_bytes() == b"kept" and len(list(tmp_path.iterdir())) == 1
    # A program may be started in place of this one, but can load no library then.
    assert done.returncode or said[7:] in (["OSError", "MemoryError"], ["PermissionError", "MemoryError"])


@pytest.mark.long
def test_what_stands_beside_weights_does_no_harm(tmp_path: Path) -> None:
    weights = torch.nn.Linear(3, 2).state_dict() | {"half/1": torch.ones(2, dtype=torch.bfloat16), "count": torch.tensor(3)}
    beside = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "curve": np.zeros(3), "optimizer": {"state": {}}}
    torch.save({"state_dict": weights, **beside}, tmp_path / "x.ckpt")
    found = unpickled(tmp_path / "x.ckpt")
    assert found.inside == "state_dict"
    assert list(found.tensors) == ["weight", "bias", "half_1", "count"], "in the order of the network"
    assert bytes(found.tensors["weight"].data) == weights["weight"].numpy().tobytes()
    assert found.tensors["half_1"].dtype == "BF16" and found.tensors["count"].shape == ()


class AttributeDict(dict):  # type: ignore[type-arg]
    pass


class ConfigDict(dict):  # type: ignore[type-arg]
    """Of mmcv: with attributes of its own."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.frozen, self.parent = True, self


class EasyDict(dict):  # type: ignore[type-arg]
    """With a slot, beside a place for all other attributes or without one."""

    __slots__ = ("locked",)

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.locked = True


class CfgNode(EasyDict):
    pass


class ModelCheckpoint:
    pass


class HistoryBuffer:
    def __init__(self) -> None:
        self.methods = {"least": HistoryBuffer.least, "curve": np.zeros(3)}

    @classmethod
    def least(cls) -> None: ...


class DictConfig:
    def __init__(self) -> None:
        self.kinds = {"a": Any, "b": dict}


@pytest.mark.long
@pytest.mark.parametrize("trainer", ["lightning", "mmengine"])
def test_what_trainers_leave_beside_weights_is_passed_over(trainer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of packages that are not installed here: their settings, callbacks, paths and curves."""
    for kind, package in (
        (AttributeDict, "pytorch_lightning.utilities.parsing"),
        (ModelCheckpoint, "pytorch_lightning.callbacks.model_checkpoint"),
        (HistoryBuffer, "mmengine.logging.history_buffer"),
        (DictConfig, "omegaconf.dictconfig"),
        (ConfigDict, "mmcv.utils.config"),
        (EasyDict, "easydict"),
        (CfgNode, "yacs.config"),
    ):
        for at in range(1, package.count(".") + 2):
            name = ".".join(package.split(".")[:at])
            monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or types.ModuleType(name))
        monkeypatch.setattr(kind, "__module__", package)
        setattr(sys.modules[package], kind.__name__, kind)
    weights = torch.nn.Linear(3, 2).state_dict()
    config = ConfigDict(model=ConfigDict(depth=3), own=CfgNode(a=EasyDict(b=1)))
    beside: dict[str, Any] = {"meta": {"epoch": 3, "cfg": config}, "message_hub": {"log": HistoryBuffer()}}
    if trainer == "lightning":
        settings = AttributeDict(lr=0.1, config=DictConfig(), data=tmp_path)
        beside = {"hyper_parameters": settings, "callbacks": {ModelCheckpoint: {"best": tmp_path}}, "counts": defaultdict(int, a=1)}
    torch.save({"state_dict": {f"model.{name}": value for name, value in weights.items()}, **beside}, tmp_path / "x.ckpt")
    found = unpickled(tmp_path / "x.ckpt")
    assert (found.inside, list(found.tensors)) == ("state_dict", ["model.weight", "model.bias"])
    assert bytes(found.tensors["model.weight"].data) == weights["weight"].numpy().tobytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.nn.Linear(2, 2), "holds more than weights: torch.nn"),
        ({"w": torch.zeros(1).expand(1 << 40)}, "more memory"),
        (b"PK\x03\x04 and no more", "no file of torch's"),
    ],
    ids=["module", "expanded", "cut"],
)
def test_what_is_refused(content: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=words):
        unpickled(file)


@pytest.mark.parametrize(
    ("content", "inside"),
    [
        ({"a.weight": torch.ones(1)}, ""),
        ({"model": {"a.weight": torch.ones(1)}, "epoch": 1}, "model"),
        ({"state_dict": {"a.weight": torch.zeros(1)}, "state_dict_ema": {"a.weight": torch.ones(1)}}, "state_dict_ema"),
        ({"checkpoint": {"a.weight": torch.ones(1)}}, "checkpoint"),
        ({"model": {"state_dict": {"a.weight": torch.ones(1)}}}, "model.state_dict"),
        ({"a.weight": torch.ones(1), "model": 3, "version": None}, ""),
    ],
    ids=["plain", "model", "averaged", "only one", "twice", "numbers beside"],
)
def test_wrappings(content: Any, inside: str) -> None:
    found, keys = state(content)
    assert keys == inside and list(found) == ["a.weight"] and found["a.weight"].item() == 1


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"state_dict": {"a": 1}}, torch.ones(2), {0: torch.ones(2)}], ids=repr)
def test_no_weights(content: Any) -> None:
    with pytest.raises(NoWeightsError):
        state(content)


@pytest.mark.parametrize(
    "tensors", [{"a": torch.eye(2).to_sparse()}, {"a b": torch.ones(1), "a/b": torch.ones(1)}], ids=["sparse", "alike"]
)
def test_no_plain_tensors(tensors: Any) -> None:
    with pytest.raises(NoWeightsError):
        buffers(tensors)
