"""OpenVINO files: the answers of the module they were made of; what is damaged, or is something else, is one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from saccade.core import finish
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.exporting import targets
from saccade.exporting.graph import assemble
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.classification.task import MEAN, STD
from saccade.tasks.classification.task import Classification as Room

openvino = pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'saccade[openvino]'")

from saccade.prediction.openvino_file import OpenVinoFile  # noqa: E402

SPEC = InputSpec(3, (8, 12), "crop", MEAN, STD)
ARGUMENTS = {"classes": 3, "channels": 3, "width": 16, "blocks": [1, 1], "stem_stride": 1}
CLASSES = ("red", "<&\"'>=green()", "bl\u00fce ]]>")  # what XML must escape
MODEL = Card("classify", CLASSES, {"source": "saccade", "name": "x", "arguments": ARGUMENTS}, SPEC, version="0")
SIZES = [(8, 12), (17, 11), (40, 33)]
META = re.compile(r'<saccade value="[^"]*" */>')

Change = Callable[[str], str]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    module = Room().build(MODEL)
    torch.nn.init.normal_(module.network.head.weight)  # it starts near zero, where all answers are alike
    return module.eval()


@pytest.fixture(scope="module")
def files(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file in each precision, and the ONNX graph they come from; read-only."""
    graph, folder, found = assemble(network, Room().decode, MODEL), tmp_path_factory.mktemp("exported"), {}
    for target, precision in (("openvino", "fp32"), ("openvino", "fp16"), ("onnx", "fp32")):
        name = precision if target == "openvino" else target
        (folder / name).mkdir()
        written = targets.write(target, graph, precision).files
        for file, data in written.items():
            (folder / name / file).write_bytes(data)
        found[name] = folder / name / next(iter(written))
    return found


@pytest.fixture(scope="module")
def reference(network: torch.nn.Module) -> TorchSession:
    return TorchSession(network, MODEL, Room().decode)


def images(batch: int, size: tuple[int, int] = (8, 12), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (batch, 3, *size), dtype=np.uint8)


# What it says


def test_card_precision_target_and_runtime(files: dict[str, Path]) -> None:
    for precision in ("fp32", "fp16"):
        file = OpenVinoFile(files[precision])
        assert file.card == MODEL
        assert (file.path, file.precision, file.target) == (files[precision], precision, "openvino")
        assert re.fullmatch(r"openvino \d+\.\d+\.\d+", file.runtime)
        session = file.session(3)
        assert (session.card, session.streams) == (MODEL, 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_answers_are_those_of_the_module(files: dict[str, Path], reference: TorchSession, batch: int, size: tuple[int, int]) -> None:
    pixels = images(batch, size)
    expected = reference.run(pixels)
    found = OpenVinoFile(files["fp32"]).session().run(pixels)
    assert list(found) == list(expected) == ["probabilities"]
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
    half = OpenVinoFile(files["fp16"]).session().run(pixels)["probabilities"]
    np.testing.assert_allclose(half, expected["probabilities"], atol=2e-2)
    assert not np.array_equal(half, found["probabilities"])


def test_any_strides_and_read_only(files: dict[str, Path]) -> None:
    session, pixels = OpenVinoFile(files["fp32"]).session(), images(4)
    expected = session.run(pixels)["probabilities"]
    rows = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    fixed = pixels.copy()
    fixed.flags.writeable = False
    for same in (rows, pixels[::-1].copy()[::-1], fixed):
        np.testing.assert_allclose(session.run(same)["probabilities"], expected, atol=1e-6)


def test_answers_already_given_are_not_written_over(files: dict[str, Path]) -> None:
    session = OpenVinoFile(files["fp32"]).session()
    pixels = images(2, seed=1)
    first = session.run(pixels)["probabilities"]
    kept = first.copy()
    pixels[:] = 0
    session.run(images(2, seed=2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_each_of_many_threads_gets_its_own_answers(files: dict[str, Path], reference: TorchSession, streams: int) -> None:
    session, wrong = OpenVinoFile(files["fp32"]).session(streams), []
    expected = [reference.run(images(1 + n % 3, SIZES[n % 3], n))["probabilities"] for n in range(8)]
    ready = threading.Barrier(8)

    def ask(n: int) -> None:
        ready.wait()
        for _ in range(15):
            found = session.run(images(1 + n % 3, SIZES[n % 3], n))["probabilities"]
            if found.shape != expected[n].shape or np.abs(found - expected[n]).max() > 1e-5:
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_images_that_the_graph_does_not_take_are_one_line(files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    session = OpenVinoFile(files["fp32"]).session()
    for pixels in (images(1)[:, :1], images(1)[0]):
        with pytest.raises(UserError, match="fails on images of shape") as caught:
            session.run(pixels)
        assert "\n" not in str(caught.value) and caught.value.where == str(files["fp32"])
    assert session.run(images(1))["probabilities"].shape == (1, 3), "it goes on"
    assert capfd.readouterr() == ("", "")


def test_devices(files: dict[str, Path]) -> None:
    assert OpenVinoFile(files["fp32"], "cpu").card == MODEL
    for device in ("cuda", "mps"):
        with pytest.raises(UserError, match="compute on cpu") as caught:
            OpenVinoFile(files["fp32"], device)
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
heavy = {"torch", "torchvision", "timm", "scipy", "sklearn", "onnx", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
print(time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code, str(files["fp32"])], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2, "processor seconds: half a second on an idle machine"


# What it refuses


@pytest.fixture
def changed(files: dict[str, Path], tmp_path: Path) -> Callable[[Change], Path]:
    """`changed(change)` -> a copy of the good file whose text `change` made another."""

    def make(change: Change) -> Path:
        shutil.copy(files["fp32"].with_suffix(".bin"), tmp_path)
        path = tmp_path / "model.xml"
        path.write_text(change(files["fp32"].read_text(encoding="utf-8")), encoding="utf-8")
        return path

    return make


def refused(path: Path, match: str | None = None) -> UserError:
    with pytest.raises(UserError, match=match) as caught:
        OpenVinoFile(path, "cpu").session()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert caught.value.where == str(path)
    return caught.value


def test_weights_that_are_missing_cut_short_or_no_file(changed: Callable[[Change], Path]) -> None:
    path = changed(lambda text: text)
    weights = path.with_suffix(".bin")
    data = weights.read_bytes()
    for part in (0, 1, 10, 19):
        weights.write_bytes(data[: len(data) * part // 20])
        refused(path)
    weights.write_bytes(data[:-1])
    refused(path)
    weights.unlink()
    refused(path, r"weights, model\.bin, are missing")
    weights.mkdir()
    refused(path, "are missing")
    weights.rmdir()
    os.mkfifo(weights)
    refused(path, "are missing")


@pytest.mark.parametrize("part", range(20))
def test_a_file_cut_short(changed: Callable[[Change], Path], part: int) -> None:
    refused(changed(lambda text: text[: len(text) * part // 20]))


CARDS: dict[str, Change] = {
    "none": lambda text: META.sub("", text),
    "another name": lambda text: text.replace("<saccade ", "<Saccade "),
    "nested": lambda text: META.sub("<saccade><task value='classify'/></saccade>", text),
    "no value": lambda text: META.sub("<saccade/>", text),
    "no JSON": lambda text: META.sub("<saccade value='{'/>", text),
    "list": lambda text: META.sub("<saccade value='[]'/>", text),
    "deep": lambda text: META.sub(f"<saccade value='{'[' * 100_000}'/>", text),
    "huge": lambda text: text.replace("&quot;version&quot;:&quot;0&quot;", f"&quot;version&quot;:&quot;{'x' * (5 << 20)}&quot;"),
    "unknown key": lambda text: text.replace("&quot;version&quot;", "&quot;evil&quot;"),
    "a file's content": lambda text: (
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + META.sub("<saccade value='&e;'/>", text.partition("?>")[2])
    ),
}


@pytest.mark.parametrize("change", CARDS.values(), ids=CARDS)
def test_the_card_must_be_there_and_good(changed: Callable[[Change], Path], change: Change, capfd: pytest.CaptureFixture[str]) -> None:
    refused(changed(change), "card")
    assert capfd.readouterr() == ("", "")


GRAPHS: dict[str, Change] = {
    "another name": lambda text: text.replace('"images"', '"pixels"'),
    "not uint8": lambda text: text.replace('element_type="u8"', 'element_type="f32"', 1),
    "an operator of nobody": lambda text: text.replace('type="Convolution"', 'type="Evil"'),
    "operators of somebody": lambda text: text.replace('version="opset1"', 'version="evil"'),
    "weights beyond the file": lambda text: re.sub(r'offset="\d+"', 'offset="99999999"', text),
    "weights before the file": lambda text: re.sub(r'offset="\d+"', 'offset="-8"', text),
    "an absurd number": lambda text: re.sub(r'size="\d+"', 'size="99999999999999999999"', text),
    "no edges": lambda text: re.sub(r"<edges>.*</edges>", "<edges/>", text, flags=re.DOTALL),
    "no layers": lambda text: re.sub(r"<layers>.*</layers>", "<layers/>", text, flags=re.DOTALL),
    "nothing": lambda text: "",
    "text": lambda text: "a text\n" * 100,
    "bombs": lambda text: '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><net name="&b;"/>',
    "deep": lambda text: "<net>" * 2000,
}


@pytest.mark.parametrize("change", [pytest.param(one, id=name) for name, one in GRAPHS.items()])
def test_what_is_no_graph_over_images_is_refused(
    changed: Callable[[Change], Path], change: Change, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(changed(change))
    assert capfd.readouterr() == ("", "")


def test_an_input_without_a_name_is_refused(changed: Callable[[Change], Path]) -> None:
    refused(changed(lambda text: text.replace(' names="images"', "")))


def test_an_output_without_a_name_is_refused_or_answers(changed: Callable[[Change], Path]) -> None:
    path = changed(lambda text: re.sub(' names="[^"]*probabilities[^"]*"', "", text))
    with contextlib.suppress(UserError):
        finish.results(OpenVinoFile(path).session().run(images(1)), MODEL, [(1, 1)], ["a"])


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.xml"
    path.write_bytes(data)
    path.with_suffix(".bin").write_bytes(data)
    refused(path)


def test_another_format_under_that_name_is_not_read(files: dict[str, Path], tmp_path: Path) -> None:
    """OpenVINO goes by the content: an ONNX graph may name other files, which this reader never opens."""
    model = onnx.load_model_from_string(files["onnx"].read_bytes())
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="gone.bin")
    model.graph.node.append(onnx.helper.make_node("Neg", ["w"], ["leak"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("leak", 1, [4]))
    (tmp_path / "model.xml").write_bytes(model.SerializeToString())
    (tmp_path / "model.bin").write_bytes(b"x")
    assert "gone.bin" not in refused(tmp_path / "model.xml").message, "it looked for the other file"


def test_texts_that_are_not_unicode(files: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(files["fp32"].with_suffix(".bin"), tmp_path)
    path, data = tmp_path / "model.xml", files["fp32"].read_bytes()
    path.write_bytes(data.replace(b'type="Convolution"', b'type="Con\xff"'))
    refused(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "gone.bin").write_bytes(b"x")
    refused(tmp_path / "gone.xml")
    (tmp_path / "gone.xml").mkdir()
    refused(tmp_path / "gone.xml")


MUTATE = """
import random, re, sys
from pathlib import Path
import numpy as np
from saccade.core.errors import UserError
from saccade.prediction.openvino_file import OpenVinoFile
path, draw = Path(sys.argv[1]), random.Random(0)
good = path.read_bytes()
numbers = list(re.finditer(rb"\\d+", good))
ran = refused = 0
for turn in range(200):
    data = bytearray(good)
    if turn % 3 == 0:
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif turn % 3 == 1:
        found = draw.choice(numbers)
        data[found.start() : found.end()] = draw.choice([b"-1", b"0", b"9" * 20, b"4294967296", b"", b"9223372036854775807", b"abc"])
    else:
        place = draw.randrange(len(data))
        del data[place : place + draw.randint(1, 50)]
    path.write_bytes(data)
    try:
        OpenVinoFile(path).session().run(np.zeros((1, 3, 8, 12), np.uint8))
        ran += 1
    except UserError as error:
        assert "\\n" not in str(error)
        refused += 1
print(ran, refused, file=sys.stderr)
"""


@pytest.mark.processes
def test_damage_anywhere_ends_in_an_answer_or_one_line(changed: Callable[[Change], Path]) -> None:
    """In a child: a runtime that is ended by a bad file would take the whole suite along."""
    done = subprocess.run([sys.executable, "-c", MUTATE, str(changed(lambda text: text))], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    ran, refused = map(int, done.stderr.split())
    assert ran > 10 and refused > 50, "the damage was too little or too much: this shows nothing"
    assert done.stdout == "", "standard output is the result's"


def test_the_card_is_the_canonical_one(files: dict[str, Path]) -> None:
    assert OpenVinoFile(files["fp32"]).card.to_json() == MODEL.to_json()
    assert json.loads(MODEL.to_json())["classes"] == list(CLASSES)


DROPPED = """
import gc, signal, sys
from pathlib import Path
import numpy as np
from saccade.prediction.openvino_file import OpenVinoFile

file, pixels = OpenVinoFile(Path(sys.argv[1])), np.zeros((1, 3, 8, 12), np.uint8)
first, second = file.session(2), file.session(1)
first.run(pixels), second.run(pixels)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda number, frame: print("stopped in order"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.processes
def test_a_signal_after_sessions_were_dropped_in_any_order_is_no_crash(files: dict[str, Path]) -> None:
    """OpenVINO gives the thread that compiles a signal stack, and took it away under the main thread: a server's SIGTERM was SIGSEGV."""
    done = subprocess.run([sys.executable, "-c", DROPPED, str(files["fp32"])], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "stopped in order"), done.stderr


TOGETHER = """
import sys, threading, time
import numpy as np
from saccade.prediction.openvino_file import OpenVinoFile
from pathlib import Path

session = OpenVinoFile(Path(sys.argv[1])).session(2)
images, go = np.zeros((1, 3, 8, 8), np.uint8), []

def call():
    while not go:
        pass  # awake, so that both come to their first call at the same moment
    session.run(images)

threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
time.sleep(0.02)
go.append(True)
for thread in threads:
    thread.join(20)
print(sum(thread.is_alive() for thread in threads), "waiting")
"""


@pytest.mark.processes
def test_first_calls_of_several_threads(files: dict[str, Path]) -> None:
    """OpenVINO's first conversion of an element type was a deadlock where two threads met in it: `predict` hung, now and then."""
    for _ in range(6):
        done = subprocess.run([sys.executable, "-c", TOGETHER, str(files["fp32"])], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("0 waiting\n", "")
