"""ONNX files: the answers of the module they were made of, and no way out of the one file, whatever it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from saccade.api.models import load, load_model
from saccade.core import finish
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.exporting import targets
from saccade.exporting.graph import assemble
from saccade.prediction import onnx_file, pipeline
from saccade.prediction.onnx_file import CARD, OnnxFile
from saccade.prediction.sources import expand
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.classification.task import MEAN, STD
from saccade.tasks.classification.task import Classification as Room

SPEC = InputSpec(3, (8, 12), "crop", MEAN, STD)
ARGUMENTS = {"classes": 3, "channels": 3, "width": 16, "blocks": [1, 1], "stem_stride": 1}
MODEL = Card("classify", ("red", "=green()", "bl\u00fce"), {"source": "saccade", "name": "x", "arguments": ARGUMENTS}, SPEC, version="0")
SIZES = [(8, 12), (17, 11), (40, 33)]

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    module = Room().build(MODEL)
    torch.nn.init.normal_(module.network.head.weight)  # it starts near zero, where all answers are alike
    return module.eval()


@pytest.fixture(scope="module")
def files(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file in each precision, read-only."""
    graph, folder = assemble(network, Room().decode, MODEL), tmp_path_factory.mktemp("exported")
    for precision in ("fp32", "fp16"):
        (folder / precision).mkdir()
        (folder / precision / "model.onnx").write_bytes(targets.write("onnx", graph, precision).files["model.onnx"])
    return {precision: folder / precision / "model.onnx" for precision in ("fp32", "fp16")}


@pytest.fixture(scope="module")
def reference(network: torch.nn.Module) -> TorchSession:
    return TorchSession(network, MODEL, Room().decode)


def images(batch: int, size: tuple[int, int] = (8, 12), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (batch, 3, *size), dtype=np.uint8)


# What it says


def test_card_precision_target_and_runtime(files: dict[str, Path]) -> None:
    for precision, path in files.items():
        file = OnnxFile(path)
        assert file.card == MODEL
        assert (file.path, file.precision, file.target) == (path, precision, "onnx")
        assert file.runtime == f"onnxruntime {onnxruntime.__version__}"
        session = file.session(3)
        assert (session.card, session.streams) == (MODEL, 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_answers_are_those_of_the_module(files: dict[str, Path], reference: TorchSession, batch: int, size: tuple[int, int]) -> None:
    pixels = images(batch, size)
    expected = reference.run(pixels)
    found = OnnxFile(files["fp32"]).session().run(pixels)
    assert list(found) == list(expected) == ["probabilities"]
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
    half = OnnxFile(files["fp16"]).session().run(pixels)["probabilities"]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, expected["probabilities"], atol=2e-2)
    assert not np.array_equal(half, found["probabilities"])


def test_any_strides_read_only_and_no_images(files: dict[str, Path]) -> None:
    session, pixels = OnnxFile(files["fp32"]).session(), images(4)
    expected = session.run(pixels)["probabilities"]
    rows = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    fixed = pixels.copy()
    fixed.flags.writeable = False
    for same in (rows, pixels[::-1].copy()[::-1], fixed):
        np.testing.assert_array_equal(session.run(same)["probabilities"], expected)
    assert session.run(images(0))["probabilities"].shape == (0, 3)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_each_of_many_threads_gets_its_own_answers(files: dict[str, Path], reference: TorchSession, streams: int) -> None:
    session, wrong = OnnxFile(files["fp32"]).session(streams), []
    expected = [reference.run(images(1 + n % 3, SIZES[n % 3], n))["probabilities"] for n in range(8)]
    ready = threading.Barrier(8)

    def ask(n: int) -> None:
        ready.wait()
        for _ in range(20):
            found = session.run(images(1 + n % 3, SIZES[n % 3], n))["probabilities"]
            if found.shape != expected[n].shape or np.abs(found - expected[n]).max() > 1e-5:
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_answers_already_given_are_not_written_over(files: dict[str, Path]) -> None:
    session = OnnxFile(files["fp32"]).session()
    first = session.run(images(2, seed=1))["probabilities"]
    kept = first.copy()
    session.run(images(2, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_images_that_the_graph_does_not_take_are_one_line(files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    session = OnnxFile(files["fp32"]).session()
    for pixels in (images(1)[:, :1], images(1)[0], images(1).astype(np.float32)):
        with pytest.raises(UserError, match="fails on images of shape") as caught:
            session.run(pixels)
        assert "\n" not in str(caught.value) and caught.value.where == str(files["fp32"])
    assert session.run(images(1))["probabilities"].shape == (1, 3), "it goes on"
    assert capfd.readouterr() == ("", "")


def test_devices(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert OnnxFile(files["fp32"], "cpu").card == MODEL
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for device in ("cuda", "cuda:1", "mps"):
        with pytest.raises(UserError, match="cannot compute on") as caught:
            OnnxFile(files["fp32"], device)
        assert caught.value.where == "--device"


@pytest.mark.processes
def test_it_starts_without_torch_and_soon(files: dict[str, Path]) -> None:
    code = """
import sys, time
from pathlib import Path
import numpy as np
from saccade.prediction.opening import open_export
session = open_export(Path(sys.argv[1])).session()
session.run(np.zeros((1, 3, 8, 12), np.uint8))
heavy = {"torch", "torchvision", "timm", "scipy", "sklearn", "onnxscript", "openvino"} & set(sys.modules)
assert not heavy, heavy
print(time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code, str(files["fp32"])], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2, "processor seconds: half a second on an idle machine"


def test_it_is_taken_where_a_run_is(files: dict[str, Path], reference: TorchSession) -> None:
    path = files["fp32"]
    inputs = [images(1, (30 + n, 20), n)[0].transpose(1, 2, 0).copy() for n in range(20)]
    expected = [answer.probabilities for answer in pipeline.stream(reference, expand(inputs))]
    for target in (path, str(path), path.parent):
        model = load(target)
        assert (model.card, model.path) == (MODEL, path)
        found = model.predict(inputs, progress=Silent())
        np.testing.assert_allclose([one.probabilities for one in found], expected, atol=1e-5)
        assert found[0].label == MODEL.classes[int(expected[0].argmax())]
    assert model.session("fp32", streams=2).streams == 2
    with pytest.raises(UserError, match="computes in fp32, not in bf16"):
        model.session("bf16")
    with pytest.raises(UserError, match="has no module"):
        load_model(path)
    with pytest.raises(UserError, match="cannot compute on"):
        load(path, device="mps")


# What it refuses


class Opened:
    """The files that Python opens meanwhile; a hook cannot be taken away again, so there is one."""

    def __init__(self) -> None:
        self.paths: list[str] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and self.paths is not None and isinstance(args[0], str):
            self.paths.append(args[0])


OPENED = Opened()


@pytest.fixture
def opened() -> Iterator[list[str]]:
    OPENED.paths = found = []
    yield found
    OPENED.paths = None


@pytest.fixture
def hostile(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], Path]:
    """`hostile(change)` -> a changed copy of the good file, in a folder where secret.bin, a link and a hard link to it lie."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.full(4, 42, np.float32).tobytes())
    (folder / "secret.bin").write_bytes(np.full(4, 42, np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    os.link(tmp_path / "secret.bin", folder / "hard.bin")
    monkeypatch.chdir(folder)  # the runtime looks here for what a model in memory names

    def make(change: Change) -> Path:
        model = onnx.load_model_from_string(files["fp32"].read_bytes())
        change(model)
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


def refused(path: Path, match: str | None = None, *, session: bool = True) -> UserError:
    """It raises a UserError of one line; `session`: at the latest when the runtime gets it."""
    with pytest.raises(UserError, match=match) as caught:
        OnnxFile(path, "cpu").session() if session else OnnxFile(path, "cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert caught.value.where == str(path)
    return caught.value


def external(name: str, location: str = "secret.bin", dims: tuple[int, ...] = (4,)) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=dims, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def output(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """`node` at the end of the graph, its output an output of the model: what it read could be seen by whoever sent the file."""
    model.graph.node.append(node)
    model.graph.output.append(value(node.output[0], 4))


TRUE = numpy_helper.from_array(np.array(True), "true")
ELSE = helper.make_graph([], "else", [], [value("zeros", 4)], [numpy_helper.from_array(np.zeros(4, np.float32), "zeros")])
INSIDE = helper.make_graph([helper.make_node("Identity", ["w"], ["x"])], "then", [], [value("x", 4)], [external("w")])
BARE = helper.make_graph([], "then", [], [value("w", 4)], [external("w")])


def branch(then: onnx.GraphProto, name: str = "leak") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Constant", [], ["true"], value=TRUE),
        helper.make_node("If", ["true"], [name], then_branch=then, else_branch=ELSE),
    ]


def in_subgraph(then: onnx.GraphProto) -> Change:
    def change(model: onnx.ModelProto) -> None:
        first, second = branch(then)
        model.graph.node.append(first)
        output(model, second)

    return change


def in_function(nodes: list[onnx.NodeProto], **options: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        opset = [helper.make_opsetid("", 18), helper.make_opsetid("evil", 1)]
        model.functions.append(helper.make_function("mine", "F", [], ["leak"], nodes, opset, **options))
        model.opset_import.append(helper.make_opsetid("mine", 1))
        output(model, helper.make_node("F", [], ["seen"], domain="mine"))

    return change


def in_default_of_function() -> Change:
    node = helper.make_node("Constant", [], ["leak"])
    node.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="v", type=onnx.AttributeProto.TENSOR))
    return in_function([node], attribute_protos=[helper.make_attribute("v", external("v"))])


def sparse() -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.array([0, 1], np.int64), "i")
    return onnx.SparseTensorProto(values=external("v", dims=(2,)), indices=indices, dims=[4])


def in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(external("w"))


def initializer(location: str) -> Change:
    return lambda model: model.graph.initializer.append(external("w", location))


OUTSIDE: dict[str, Change] = {
    **{
        f"initializer {path}": initializer(path)
        for path in ("secret.bin", "./secret.bin", "../secret.bin", "link.bin", "hard.bin", "gone", "")
    },
    "initializer absolute": initializer(os.path.abspath(__file__)),
    "initializer memory": initializer("*/_ORT_MEM_ADDR_/*"),
    "no location": lambda model: model.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    ),
    "default place": lambda model: model.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=1, dims=[4], external_data=external("").external_data)
    ),
    "node attribute": lambda model: output(model, helper.make_node("Constant", [], ["leak"], value=external("w"))),
    "node attributes": lambda model: output(model, helper.make_node("Constant", [], ["leak"], values=[external("w")])),
    "sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse()),
    "subgraph": in_subgraph(INSIDE),
    "subgraph of subgraph": in_subgraph(helper.make_graph(branch(INSIDE, "x"), "outer", [], [value("x", 4)])),
    "function": in_function([helper.make_node("Constant", [], ["leak"], value=external("w"))]),
}
LEAKS: dict[str, Change] = {
    "subgraph without nodes": in_subgraph(BARE),
    "subgraph in a function": in_function(branch(INSIDE)),
    "subgraph without nodes in a function": in_function(branch(BARE)),
    "default of a function's attribute": in_default_of_function(),
    "sparse attribute": lambda model: output(model, helper.make_node("Constant", [], ["leak"], sparse_value=sparse())),
    "training information": in_training,
}


@pytest.mark.parametrize("change", [*OUTSIDE.values(), *LEAKS.values()], ids=[*OUTSIDE, *LEAKS])
def test_weights_in_other_files_are_never_opened(
    hostile: Callable[[Change], Path], opened: list[str], monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    path = hostile(change)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **options: pytest.fail("the runtime was reached"))
    opened.clear()
    error = refused(path, "other files, which are never opened", session=False)
    assert error.fix == "save it as one file"
    assert opened == [str(path)]


CUSTOM: dict[str, Change] = {
    "node": lambda model: output(model, helper.make_node("Evil", ["images"], ["x"], domain="evil")),
    "subgraph": in_subgraph(helper.make_graph([helper.make_node("Evil", [], ["x"], domain="evil")], "then", [], [value("x", 4)])),
    "function": in_function([helper.make_node("Evil", [], ["leak"], domain="evil")]),
    "line breaks": lambda model: output(model, helper.make_node("Evil", ["images"], ["x"], domain="e\n\x1bvil" * 200)),
    "unknown operator": lambda model: output(model, helper.make_node("Evil", ["images"], ["x"])),
    "unknown function": lambda model: (
        in_function([helper.make_node("Constant", [], ["leak"], value=TRUE)])(model),
        output(model, helper.make_node("Evil", [], ["more"], domain="mine")),
    )[0],
    "subgraph in a function": in_function(
        branch(helper.make_graph([helper.make_node("Evil", [], ["x"], domain="evil")], "then", [], [value("x", 4)]))
    ),
}


@pytest.mark.parametrize("change", CUSTOM.values(), ids=CUSTOM)
def test_custom_operators_are_never_loaded(hostile: Callable[[Change], Path], change: Change, capfd: pytest.CaptureFixture[str]) -> None:
    refused(hostile(change))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("where", ["node", "function", "subgraph"])
def test_custom_operators_are_named(hostile: Callable[[Change], Path], where: str) -> None:
    assert "custom operators (evil)" in refused(hostile(CUSTOM[where]), session=False).message


def test_too_many_nodes(hostile: Callable[[Change], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MOST_NODES", 5)
    refused(hostile(lambda model: None), "at most 5 nodes", session=False)


def carded(*texts: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]
        for text in texts:
            model.metadata_props.add(key=CARD, value=text)

    return change


GOOD = MODEL.to_json()
CARDS: dict[str, Change] = {
    "none": carded(),
    "two": carded(GOOD, GOOD),
    "another key": lambda model: setattr(model.metadata_props[0], "key", "Saccade"),
    **{
        name: carded(text)
        for name, text in {
            "empty": "",
            "no JSON": "{",
            "NaN": "NaN",
            "list": "[]",
            "null": "null",
            "deep": "[" * 100_000,
            "long number": '{"input":' + "9" * 100_000 + "}",
            "huge": json.dumps({**MODEL.to_dict(), "version": "x" * (5 << 20)}),
            "huge size": GOOD.replace("[8,12]", "[8,99999999999999999999]"),
            "unknown key": json.dumps({**MODEL.to_dict(), "evil": 1}),
            "missing key": json.dumps({name: one for name, one in MODEL.to_dict().items() if name != "classes"}),
            "size no list": GOOD.replace("[8,12]", "5"),
        }.items()
    },
}


@pytest.mark.parametrize("change", CARDS.values(), ids=CARDS)
def test_the_card_must_be_there_once_and_good(hostile: Callable[[Change], Path], change: Change) -> None:
    refused(hostile(change), "card", session=False)


def test_a_card_of_another_model_is_refused_with_the_first_answer(hostile: Callable[[Change], Path]) -> None:
    for other in (replace(MODEL, classes=("a", "b")), replace(MODEL, task="segment")):
        session = OnnxFile(hostile(carded(other.to_json()))).session()
        with pytest.raises(UserError):
            finish.results(session.run(images(1)), session.card, [(1, 1)], ["a"])


def first_input(change: Callable[[onnx.ValueInfoProto], None]) -> Change:
    return lambda model: change(model.graph.input[0])


def renamed(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "pixels"
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]


def shaped(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.TensorProto(name="w", data_type=1, dims=dims))
        output(model, helper.make_node("Neg", ["w"], ["x"]))

    return change


INPUTS: dict[str, Change] = {
    "another name": renamed,
    "not uint8": first_input(lambda one: setattr(one.type.tensor_type, "elem_type", onnx.TensorProto.FLOAT)),
    "int8": first_input(lambda one: setattr(one.type.tensor_type, "elem_type", onnx.TensorProto.INT8)),
    "sequence": first_input(lambda one: one.CopyFrom(helper.make_tensor_sequence_value_info("images", 2, None))),
    "two": lambda model: model.graph.input.append(value("more", 1)),
    "twice": lambda model: model.graph.input.append(model.graph.input[0]),
    "none": lambda model: model.graph.ClearField("input"),
    "cycle": lambda model: model.graph.node.extend([helper.make_node("Neg", ["p"], ["q"]), helper.make_node("Neg", ["q"], ["p"])]),
    "no graph": lambda model: model.ClearField("graph"),
    "a newer format": lambda model: setattr(model, "ir_version", 1 << 40),
    "a newer opset": lambda model: setattr(model.opset_import[0], "version", 9999),
    "no opset": lambda model: model.ClearField("opset_import"),
    "tensor shorter than said": lambda model: setattr(model.graph.initializer[0], "raw_data", b""),
    "tensor of absurd size": shaped(1 << 62, 8),
    "tensor of a size too large for memory": shaped(1 << 44),
    "tensor of negative size": shaped(-1),
}


@pytest.mark.parametrize("change", INPUTS.values(), ids=INPUTS)
def test_what_is_no_graph_over_images_is_refused(
    hostile: Callable[[Change], Path], change: Change, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(hostile(change))
    assert capfd.readouterr() == ("", "")


OUTPUTS: dict[str, Change] = {
    "none": lambda model: model.graph.ClearField("output"),
    "another name": lambda model: (
        model.graph.output.pop(),
        output(model, helper.make_node("Identity", ["probabilities"], ["other"])),
    )[0],
    "a sequence": lambda model: (
        model.graph.node.append(helper.make_node("SequenceConstruct", ["probabilities", "probabilities"], ["s"])),
        model.graph.output.pop(),
        model.graph.output.append(helper.make_tensor_sequence_value_info("s", 1, None)),
    )[1],
    "more memory than there is": lambda model: (
        model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40, 1 << 18], np.int64), "shape")),
        output(model, helper.make_node("ConstantOfShape", ["shape"], ["filled"])),
    )[1],
}


@pytest.mark.parametrize("change", OUTPUTS.values(), ids=OUTPUTS)
def test_what_gives_no_probabilities_is_one_line(
    hostile: Callable[[Change], Path], change: Change, capfd: pytest.CaptureFixture[str]
) -> None:
    path = hostile(change)
    with pytest.raises(UserError) as caught:
        finish.results(OnnxFile(path).session().run(images(1)), MODEL, [(1, 1)], ["a"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", range(20))
def test_a_file_cut_short(files: dict[str, Path], tmp_path: Path, part: int) -> None:
    data = files["fp32"].read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: len(data) * part // 20])
    refused(path)


@given(st.binary(max_size=300))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    refused(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    refused(folder, "must be a file")
    refused(tmp_path / "gone.onnx", "no such file")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "must be a file")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    refused(tmp_path / "loop.onnx")


NOT_UTF8 = {
    "operator": (b"Conv", b"Con\xff"),
    "card": (b'"task"', b'"tas\xff"'),
    "key": (b"\x07saccade", b"\x07saccad\xff"),
    "input": (b"\x06images", b"\x06image\xff"),
}


@pytest.mark.parametrize("name", NOT_UTF8)
def test_texts_that_are_not_unicode(files: dict[str, Path], tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    before, after = NOT_UTF8[name]
    data = files["fp32"].read_bytes()
    assert before in data
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(before, after))
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_is_read_as_onnx_whatever_its_first_bytes_look_like(files: dict[str, Path], tmp_path: Path) -> None:
    """The runtime knows a second format by the bytes 4 to 7; what was checked as ONNX must not be loaded as that."""
    model = onnx.load_model_from_string(files["fp32"].read_bytes())
    model.ClearField("producer_name")
    name = b"ORTM" + bytes(22)
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes([0x12, 0x80 | len(name), 0x80, 0x00]) + name + model.SerializeToString())
    expected = OnnxFile(files["fp32"]).session().run(images(1))["probabilities"]
    np.testing.assert_array_equal(OnnxFile(path).session().run(images(1))["probabilities"], expected)


MUTATE = """
import random, sys
from pathlib import Path
import numpy as np
from saccade.core.errors import UserError
from saccade.prediction.onnx_file import OnnxFile
good, path, draw = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), random.Random(0)
ran = refused = 0
for _ in range(400):
    data = bytearray(good)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(6000 if draw.random() < 0.7 else len(data))
        if draw.random() < 0.7:
            data[place] = draw.randrange(256)
        else:
            del data[place : place + draw.randint(1, 30)]
    path.write_bytes(data)
    try:
        OnnxFile(path, "cpu").session().run(np.zeros((1, 3, 8, 12), np.uint8))
        ran += 1
    except UserError as error:
        assert "\\n" not in str(error)
        refused += 1
print(ran, refused, file=sys.stderr)
"""


@pytest.mark.processes
def test_damage_anywhere_ends_in_an_answer_or_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    """In a child: a runtime that is ended by a bad file would take the whole suite along."""
    command = [sys.executable, "-c", MUTATE, str(files["fp32"]), str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    ran, refused = map(int, done.stderr.split())
    assert ran > 20 and refused > 100, "the damage was too little or too much: this shows nothing"
    assert done.stdout == "", "standard output is the result's"
