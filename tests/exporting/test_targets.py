"""The files themselves, by torch's real exporter: what goes in and out, which axes vary, what is written in them and what is not."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.data.sample import Schema
from saccade.exporting import onnx as onnx_target
from saccade.exporting import targets
from saccade.exporting.graph import Graph, assemble
from saccade.prediction.opening import open_export
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.classification.task import MEAN, STD, Classification

EXPORTS = [("onnx", "fp32"), ("onnx", "fp16"), ("openvino", "fp32"), ("openvino", "fp16")]
HOSTILE = ("quo\"te's", "<b>&amp;]]></b>", "line\nbreak\ttab\r", "\x01\x7f\x85\u2028", "kätzchen 猫 🙂", " ", "", "{}%s\\")


def card(channels: int = 3, size: tuple[int, int] = (17, 11), classes: tuple[str, ...] = HOSTILE) -> Card:
    arguments = {"classes": len(classes), "channels": channels, "width": 4, "blocks": [1, 1], "stem_stride": 1, "dropout": 0.5}
    spec = InputSpec(channels, size, "crop", *((MEAN, STD) if channels == 3 else ((0.449,), (0.226,))))
    return Card("classify", classes, {"source": "saccade", "name": "tiny", "arguments": arguments}, spec, version="0.1.0")


def module(of: Card) -> nn.Module:
    """With statistics and a head that make answers differ."""
    torch.manual_seed(0)
    made = Classification().build(of)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    nn.init.normal_(made.network.head.weight)  # type: ignore[union-attr, arg-type]
    return made.eval()


def graph_of(of: Card) -> Graph:
    return assemble(module(of), Classification().decode, of)


def pixels(n: int, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.Philox(n)).integers(0, 256, (n, channels, *size), dtype=np.uint8)


@pytest.fixture(scope="module")
def colour(build: Callable[[Graph], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The tiny network of three channels, exported everywhere: (target, precision) -> the file to open."""
    return save_all(card(), build, tmp_path_factory.mktemp("colour"))


@pytest.fixture(scope="module")
def grey(build: Callable[[Graph], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    return save_all(card(1), build, tmp_path_factory.mktemp("grey"))


def save_all(of: Card, build: Callable[[Graph], Any], place: Path) -> dict[tuple[str, str], Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_target, "build", build)
        return {(to, precision): save(graph_of(of), to, precision, place / f"{to}-{precision}") for to, precision in EXPORTS}


def save(graph: Graph, to: str, precision: str, folder: Path) -> Path:
    written = targets.write(to, graph, precision)
    folder.mkdir(parents=True)
    for name, content in written.files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(written.files))


# The graph


def test_assembling_leaves_the_module_as_it_was() -> None:
    made = module(card()).train().to(memory_format=torch.channels_last)
    before = {name: (value.clone(), value.stride()) for name, value in made.state_dict().items()}
    graph = assemble(made, Classification().decode, card())
    assert made.training and not any(part.training for part in graph.module.get_submodule("module").modules())
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name][0]) and value.stride() == before[name][1], name
    own = {value.data_ptr() for value in made.state_dict().values()}
    assert own.isdisjoint(value.data_ptr() for value in graph.module.state_dict().values())


@pytest.mark.parametrize("size", [(17, 11), (224, 224), (1, 1), (8, 300)])
def test_the_other_sizes_are_neither_square_nor_the_cards(size: tuple[int, int]) -> None:
    graph = graph_of(card(size=size))
    assert tuple(graph.sample.shape) == (2, 3, *size) and graph.sample.dtype == torch.uint8
    assert list(graph.names) == ["probabilities"]
    assert len({size, *graph.sizes}) == 3
    assert all(height != width and min(height, width) >= 1 for height, width in graph.sizes), graph.sizes


def test_the_same_sample_every_time_without_a_global_generator() -> None:
    state = torch.get_rng_state()
    first, second = graph_of(card()).sample, graph_of(card()).sample
    torch.set_rng_state(state)
    assemble(module(card()), Classification().decode, card())
    assert torch.equal(first, second)


class FixedSize(nn.Module):
    """Takes 17x11 only, as a vision transformer would."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 17 * 11, len(HOSTILE))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.float().flatten(1) / 255)
        return logits


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_network_of_one_size_varies_in_the_batch_only(to: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FixedSize()
    graph = assemble(network, Classification().decode, card())
    assert list(graph.sizes) == []
    written = targets.write(to, graph, "fp32")
    assert list(written.dynamic) == ["batch"]
    for name, content in written.files.items():
        (tmp_path / name).write_bytes(content)
    session = open_export(tmp_path / next(iter(written.files))).session()
    same(session, TorchSession(network, card(), Classification().decode), pixels(3, 3, (17, 11)))
    with pytest.raises(UserError, match="fails on images of shape") as caught:
        session.run(pixels(1, 3, (18, 11)))
    assert "\n" not in str(caught.value)


class Checked(nn.Module):
    """Looks at numbers of its own, as detectors of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = module(card())

    def forward(self, images: Tensor) -> Tensor:
        torch._check_tensor_all(images >= 0)
        logits: Tensor = self.inner(images)
        return logits


def test_a_network_that_checks_itself_is_exported(tmp_path: Path) -> None:
    network = Checked().eval()
    written = targets.write("onnx", assemble(network, Classification().decode, card()), "fp32")
    (tmp_path / "model.onnx").write_bytes(written.files["model.onnx"])
    session = open_export(tmp_path / "model.onnx").session()
    same(session, TorchSession(network, card(), Classification().decode), pixels(3, 3, (17, 11)))


class Undecided(nn.Module):
    """What it computes depends on the pixels: no exporter follows."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.float().mean((2, 3))
        return logits if logits.sum() > 5 else logits[:, :1].expand(-1, 3)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_network_that_cannot_be_exported_is_one_line(to: str) -> None:
    graph = assemble(Undecided(), Classification().decode, card(classes=("a", "b", "c")))
    with pytest.raises(UserError, match="cannot export this network") as caught:
        targets.write(to, graph, "fp32")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


# What is in the files


def test_two_exports_at_once_leave_torch_and_the_process_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is patched is so for the whole process: the second begins when the first is done. Meanwhile others' calls go on as ever."""
    linspace, stdout, both, made = torch.linspace, sys.stdout, threading.Barrier(2), []

    def export(*args: Any, **options: Any) -> Any:
        made.append(torch.linspace(0, 1, 3, requires_grad=True, out=None))
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        if threading.current_thread().name == "last":
            time.sleep(0.2)
        return SimpleNamespace(model_proto=None)

    monkeypatch.setattr(torch.onnx, "export", export)
    graph = graph_of(card())
    threads = [threading.Thread(target=onnx_target._export, args=(graph, ["batch"]), name=name) for name in ("first", "last")]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert torch.linspace is linspace and sys.stdout is stdout
    assert [row.requires_grad for row in made] == [True, True]


def same(session: Any, original: Any, images: NDArray[np.uint8], atol: float = 1e-5) -> None:
    found, wanted = session.run(images), original.run(images)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, atol=atol, err_msg=f"{name} of {images.shape}")


@pytest.mark.parametrize(("to", "precision"), EXPORTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_batch_and_any_size_answers_as_torch_does(request: Any, to: str, precision: str, channels: int) -> None:
    file = request.getfixturevalue("colour" if channels == 3 else "grey")[to, precision]
    session = open_export(file).session()
    original = TorchSession(module(card(channels)), card(channels), Classification().decode)
    for shape in ((1, 17, 11), (3, 17, 11), (9, 17, 11), (2, 40, 9), (1, 64, 128), (2, 5, 4)):
        same(session, original, pixels(shape[0], channels, shape[1:]), atol=1e-5 if precision == "fp32" else 0.02)


@pytest.mark.parametrize(("to", "precision"), EXPORTS)
def test_the_file_carries_the_card_and_its_precision(colour: dict[Any, Path], to: str, precision: str) -> None:
    opened = open_export(colour[to, precision])
    assert opened.card == card(), "with every character of its classes"
    assert (opened.target, opened.precision, opened.path) == (to, precision, colour[to, precision])
    assert opened.runtime.split()[0] in ("onnxruntime", "openvino")


def test_onnx_is_uint8_in_float32_out_with_named_axes_and_one_piece_of_metadata(colour: dict[Any, Path], grey: dict[Any, Path]) -> None:
    for files, channels, kind in ((colour, 3, "RGB"), (grey, 1, "grey")):
        for precision in ("fp32", "fp16"):
            model = onnx.load_model(files["onnx", precision])
            if precision == "fp32":
                onnx.checker.check_model(model, full_check=True)
            assert {entry.key: entry.value for entry in model.metadata_props} == {"saccade": card(channels).to_ascii()}
            (image,), (answer,) = model.graph.input, model.graph.output
            shape = image.type.tensor_type.shape.dim
            assert (image.name, image.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
            assert [axis.dim_param or axis.dim_value for axis in shape] == ["batch", channels, "height", "width"]
            assert kind in image.doc_string and "17x11" in image.doc_string
            assert (answer.name, answer.type.tensor_type.elem_type) == ("probabilities", onnx.TensorProto.FLOAT)
            assert [axis.dim_param or axis.dim_value for axis in answer.type.tensor_type.shape.dim] == ["batch", len(HOSTILE)]
            assert all(not part.metadata_props and not part.doc_string for part in model.graph.node)


def test_half_precision_is_valid_onnx(colour: dict[Any, Path]) -> None:
    """ONNX Runtime sorts by itself; others need not."""
    onnx.checker.check_model(onnx.load_model(colour["onnx", "fp16"]), full_check=True)


def test_openvino_is_uint8_in_float32_out_with_open_axes(colour: dict[Any, Path]) -> None:
    import openvino

    for precision in ("fp32", "fp16"):
        model = openvino.Core().read_model(colour["openvino", precision])
        (image,), (answer,) = model.inputs, model.outputs
        assert (image.get_any_name(), image.get_element_type()) == ("images", openvino.Type.u8)
        assert [axis.is_dynamic for axis in image.get_partial_shape()] == [True, False, True, True]
        assert (answer.get_any_name(), answer.get_element_type()) == ("probabilities", openvino.Type.f32)


def test_half_precision_halves_the_weights(colour: dict[Any, Path]) -> None:
    weights = sum(value.numel() for name, value in module(card()).state_dict().items() if "running" not in name)

    def saved(to: str) -> int:
        files = [colour[to, precision].with_suffix({"onnx": ".onnx", "openvino": ".bin"}[to]) for precision in ("fp32", "fp16")]
        return files[0].stat().st_size - files[1].stat().st_size

    assert saved("openvino") > weights
    kinds = {tensor.data_type for tensor in onnx.load_model(colour["onnx", "fp16"]).graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds and onnx.TensorProto.FLOAT16 in kinds


@pytest.mark.parametrize(("to", "precision"), EXPORTS)
def test_nothing_of_this_machine_is_in_the_file(colour: dict[Any, Path], to: str, precision: str) -> None:
    user, home, repo = getpass.getuser(), str(Path.home()), str(Path(__file__).parents[2])
    words = {home, repo, tempfile.gettempdir(), os.getcwd(), socket.gethostname(), "site-packages", ".py", f"/{user}", "torch/"}
    for file in colour[to, precision].parent.iterdir():
        content = file.read_bytes()
        assert [word for word in words if word.encode() in content] == [], file.name


@pytest.mark.parametrize(("to", "precision"), EXPORTS)
def test_exported_twice_it_is_the_same_to_the_byte(
    real_build: Any, colour: dict[Any, Path], to: str, precision: str, tmp_path: Path
) -> None:
    """Through torch's exporter both times: `colour` was the first."""
    assert onnx_target.build is real_build
    again = save(graph_of(card()), to, precision, tmp_path / "again")
    first = {file.name: file.read_bytes() for file in colour[to, precision].parent.iterdir()}
    assert {file.name: file.read_bytes() for file in again.parent.iterdir()} == first


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_class_whose_name_is_not_unicode(build: Any, monkeypatch: pytest.MonkeyPatch, to: str, tmp_path: Path) -> None:
    """`train` takes such a folder; its export must hold it, or say in a line that it cannot."""
    monkeypatch.setattr(onnx_target, "build", build)
    named = card(classes=(os.fsdecode(b"byte\xff"), *HOSTILE[1:]))
    try:
        file = save(graph_of(named), to, "fp32", tmp_path / "x")
    except UserError:
        return
    assert open_export(file).card == named


def test_unknown_words_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown target 'onx'.*onnx") as caught:
        targets.check("onx", "fp32")
    assert caught.value.where == "--to"
    for precision in ("int8", "fp-16", "", "FP16"):
        with pytest.raises(UserError, match="fp32 or fp16") as caught:
            targets.check("onnx", precision)
        assert caught.value.where == "--precision"


# Networks of timm, with random weights


TIMM = [
    ("resnet18", (40, 24), True),
    pytest.param("vgg11_bn", (32, 32), False, marks=pytest.mark.slow),  # half a minute each
    pytest.param("densenet121", (33, 20), True, marks=pytest.mark.slow),
    ("convnext_atto", (64, 48), True),
    ("mobilenetv3_small_050", (48, 64), True),
    ("vit_tiny_patch16_224", (224, 224), False),
    ("resnet18", (1, 1), None),
]


@pytest.mark.long
@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(("name", "size", "dynamic"), TIMM)
def test_networks_of_timm(
    to: str, name: str, size: tuple[int, int], dynamic: bool | None, tmp_path: Path, build: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(onnx_target, "build", build)
    torch.manual_seed(0)
    schema = Schema("classify", ("a", "b", "c"), {}, 3, size, True)
    made, its_card = Classification().create(TrainConfig(model=name, size=size, channels=3, device="cpu"), schema)
    made.eval()
    head = [part for part in made.modules() if isinstance(part, nn.Linear)][-1]
    nn.init.normal_(head.weight, std=0.2)
    graph = assemble(made, Classification().decode, its_card)
    original = TorchSession(made, its_card, Classification().decode)
    for precision in ("fp32", "fp16"):
        written = targets.write(to, graph, precision)
        if dynamic is not None:
            assert list(written.dynamic) == (["batch", "height", "width"] if dynamic else ["batch"])
        folder = tmp_path / precision
        folder.mkdir()
        for file, content in written.files.items():
            (folder / file).write_bytes(content)
        opened = open_export(folder / next(iter(written.files)))
        assert opened.card == its_card and opened.precision == precision
        session, atol = opened.session(), 1e-4 if precision == "fp32" else 0.05
        for shape in [size, *(graph.sizes if "height" in written.dynamic else ())]:
            for batch in (1, 3):
                same(session, original, pixels(batch, 3, shape), atol=atol)


def test_a_card_of_another_size_is_another_file(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memo of these tests must not hide it: the card is written after the graph is built."""
    monkeypatch.setattr(onnx_target, "build", build)
    graph = graph_of(card())
    other = replace(graph, card=replace(card(), classes=tuple(reversed(HOSTILE))))
    assert targets.write("onnx", graph, "fp32").files != targets.write("onnx", other, "fp32").files
