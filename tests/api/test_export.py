"""`export` and `verify` from Python and the command line: what they write and refuse, and that the proof can be repeated anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import saccade
from saccade import Run, UserError
from saccade.api import exporting as verb
from saccade.cli.main import main
from saccade.core.progress import Silent
from saccade.exporting import onnx as onnx_target
from saccade.exporting.graph import Graph
from small_jobs import one_thread  # noqa: F401  a fixture for all tests here

pytestmark = pytest.mark.long  # each of them is short, together they take a minute

# Nothing is sent to anybody while the tests run; test_openvino_sends_nothing below looks at saccade itself.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

QUIET = Silent()
Captured = pytest.CaptureFixture[str]
KEYS = {"file", "target", "metrics", "agreement", "verdict", "certificate"}


def strict(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """torch's exporter runs once for each model, and nobody reads latencies here."""
    kept: dict[str, tuple[onnx.ModelProto, Any]] = {}
    build = onnx_target.build

    def once(graph: Graph) -> tuple[onnx.ModelProto, Any]:
        key = graph.card.to_json()
        if key not in kept:
            kept[key] = build(graph)
        copied = onnx.ModelProto()
        copied.CopyFrom(kept[key][0])
        return copied, kept[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_target, "build", once)
        patch.setattr(verb, "ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def onnx_folder(run: Run) -> Path:
    """The run's export to ONNX in its default place; read-only."""
    found = saccade.export(run.path, to="onnx", device="cpu", progress=QUIET)
    assert found.file is not None
    return found.file.parent


@pytest.fixture(scope="module")
def openvino_folder(run: Run) -> Path:
    found = saccade.export(run.path, to="openvino", device="cpu", progress=QUIET)
    assert found.file is not None
    return found.file.parent


@pytest.fixture
def copy(onnx_folder: Path, tmp_path: Path) -> Path:
    """A copy of the ONNX export, to be changed."""
    return shutil.copytree(onnx_folder, tmp_path / "copy")


@pytest.fixture
def copy_xml(openvino_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(openvino_folder, tmp_path / "copy xml")


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(capsys: Captured, place: Path, *argv: str | Path, words: tuple[str, ...] = ()) -> str:
    """Exit code 2, one line on standard error, nothing on standard output, and no file made or changed below `place`."""
    before = snapshot(place)
    capsys.readouterr()
    assert main([*map(str, argv), "--quiet"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line
    assert main([*map(str, argv), "--quiet", "--json"]) == 2
    told = capsys.readouterr()
    assert set(strict(told.out)) == {"error"} and told.out.count("\n") == 1
    assert snapshot(place) == before
    return line


def no(capsys: Captured, *argv: str | Path) -> dict[str, Any]:
    """A gate that says no: exit code 2 with its complete object."""
    capsys.readouterr()
    assert main([*map(str, argv), "--quiet", "--json"]) == 2
    facts: dict[str, Any] = strict(capsys.readouterr().out)
    assert set(facts) >= KEYS and facts["verdict"] == "fail"
    return facts


def checks(facts: dict[str, Any]) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in facts["checks"]}


# What an export leaves


def test_a_run_knows_its_place_and_its_data(run: Run, onnx_folder: Path) -> None:
    assert onnx_folder == run.path / "exports" / "onnx-fp32"
    assert sorted(path.name for path in onnx_folder.iterdir()) == ["CERTIFICATE.json", "MANIFEST.json", "model.onnx", "reference.npz"]


@pytest.mark.parametrize(("target", "names"), [("onnx", ["model.onnx"]), ("openvino", ["model.bin", "model.xml"])])
def test_the_certificate(run: Run, shapes: Path, request: Any, target: str, names: list[str]) -> None:
    folder: Path = request.getfixturevalue(f"{target}_folder")
    stated = strict((folder / "CERTIFICATE.json").read_bytes())
    assert sorted(stated["files"]) == sorted([*names, "reference.npz"])
    for name, entry in stated["files"].items():
        assert entry == {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    assert stated["bytes"] == sum(stated["files"][name]["bytes"] for name in names)
    assert (stated["verdict"], stated["target"], stated["precision"], stated["tolerance"]) == ("pass", target, "fp32", 0.5)
    assert (stated["images"], stated["split"], stated["agreement"]) == (18, "val", 1.0)
    assert stated["source"]["sha256"] == sha256(run.model)
    assert stated["dynamic"] == ["batch", "height", "width"]
    assert stated["input"] == {"name": "images", "dtype": "uint8", "layout": "BCHW", "channels": 3}
    assert set(stated["metrics"]["reference"]) == set(stated["metrics"]["exported"]) == set(stated["differences"])
    assert stated["metrics"]["reference"]["accuracy"] == stated["metrics"]["exported"]["accuracy"]
    assert stated["metrics"]["exported"]["nll"] == pytest.approx(stated["metrics"]["reference"]["nll"], abs=1e-5)
    assert {name for name, row in stated["differences"].items() if set(row) == {"value", "low", "high"}} == set(stated["differences"])
    assert {(tuple(row["size"]), row["batch"]) for row in stated["outputs"]} >= {((33, 20), 8), ((33, 20), 1)}
    assert len({tuple(row["size"]) for row in stated["outputs"]}) == 3, "the card's size and two others"
    assert all(row["images"] >= 16 and row["excess"] <= 0 for row in stated["outputs"])
    assert all(check["passed"] for check in stated["checks"])
    assert set(stated["latency_ms"]) == {"reference", "exported"} and min(stated["latency_ms"].values()) > 0
    assert stated["runtime"].startswith({"onnx": "onnxruntime ", "openvino": "openvino "}[target])


def test_the_reference_figures_are_those_of_evaluation(run: Run, onnx_folder: Path) -> None:
    stated = strict((onnx_folder / "CERTIFICATE.json").read_bytes())
    found = run.evaluate(split="val", precision="fp32", progress=QUIET)
    assert stated["metrics"]["reference"] == pytest.approx(dict(found.metrics), abs=1e-6)


def test_the_card_is_the_models(run: Run, onnx_folder: Path, openvino_folder: Path) -> None:
    wanted = saccade.load(run.path, device="cpu").card
    for file in (onnx_folder, onnx_folder / "model.onnx", openvino_folder, openvino_folder / "model.xml"):
        opened = saccade.load(file)
        assert isinstance(opened, saccade.ExportedModel)
        assert opened.card == wanted and opened.file.precision == "fp32"


def test_python_and_the_command_say_the_same(run: Run, shapes: Path, tmp_path: Path, capsys: Captured) -> None:
    """A MODEL with --data, fp16, in another place, twice: the second replaces the first."""
    found = saccade.export(
        run.model, to="onnx", data=shapes, precision="fp16", tolerance=30, device="cpu", out=tmp_path / "x", progress=QUIET
    )
    assert found.passed and found.file == tmp_path / "x" / "model.onnx" and found.certificate == tmp_path / "x" / "CERTIFICATE.json"
    first = found.to_dict()
    argv = ["export", run.model, "--to", "onnx", "--data", shapes, "--precision", "fp16", "--tolerance", "30", "--out", tmp_path / "x"]
    assert main([*map(str, argv), "--device", "cpu", "--json", "--quiet"]) == 0
    second = strict(capsys.readouterr().out)
    for facts in (first, second):
        assert set(facts) >= KEYS
        for name in ("created", "latency_ms"):
            facts.pop(name)
    assert json.loads(json.dumps(first)) == second
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "here") == ["x"]
    assert (second["precision"], second["tolerance"]) == ("fp16", 30)
    assert second["bytes"] < 0.6 * run.model.stat().st_size
    assert saccade.verify(tmp_path / "x", shapes, device="cpu", progress=QUIET).passed


@pytest.mark.long
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_names_that_attack(hostile_run: Run, hostile_folder: Path, tmp_path: Path, target: str) -> None:
    """Classes, files (one not Unicode), folders: all of them hostile; the proof is repeated where the data have moved."""
    found = saccade.export(hostile_run.path, to=target, device="cpu", out=tmp_path / "out & <b>", progress=QUIET)
    assert found.passed and found.file is not None
    strict((tmp_path / "out & <b>" / "CERTIFICATE.json").read_bytes())
    assert saccade.load(found.file).card == saccade.load(hostile_run.path, device="cpu").card
    moved = shutil.copytree(hostile_folder, tmp_path / "moved 'data'")
    again = saccade.verify(found.file, moved, progress=QUIET)
    assert again.passed and again.facts["images"] == found.facts["images"] > 0
    images = sorted(moved.rglob("*.png"))
    for one, other in zip(saccade.predict(found.file, images, progress=QUIET), hostile_run.predict(images, progress=QUIET), strict=True):
        assert (one.source, one.label) == (other.source, other.label)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)


def test_images_that_training_left_out_are_left_out_again(run: Run, shapes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shapes, tmp_path / "data")
    bad = sorted((data / "val").rglob("*.png"))[4]
    bad.write_bytes(b"no image")
    copy = shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    record = json.loads((copy / "run.json").read_text())
    record["config"]["data"] = str(data)
    record["data"]["bad"] = [{"path": str(bad.relative_to(data)), "reason": "no image"}]
    (copy / "run.json").write_text(json.dumps(record))
    found = saccade.export(copy, to="onnx", device="cpu", progress=QUIET)
    assert found.passed and found.facts["images"] == 17
    assert found.file is not None and saccade.verify(found.file, data, progress=QUIET).passed


# Requests that are at fault


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "onxx"], ("unknown target 'onxx'", "did you mean", "onnx", "--to")),
        (["--to", "openvin"], ("unknown target 'openvin'", "did you mean openvino")),
        (["--to", ""], ("unknown target", "--to")),
        (["--to", "onnx", "--precision", "int8"], ("fp32 or fp16", "int8", "--precision")),
        (["--to", "onnx", "--precision", "fp23"], ("fp32 or fp16", "fp23")),
        (["--to", "onnx", "--tolerance", "-1"], ("0 to 100 points", "-1", "--tolerance")),
        (["--to", "onnx", "--tolerance", "nan"], ("0 to 100 points", "--tolerance")),
        (["--to", "onnx", "--tolerance", "1e999"], ("0 to 100 points",)),
        (["--to", "onnx", "--tolerance", "101"], ("0 to 100 points",)),
        (["--to", "onnx", "--tolerance", "much"], ("--tolerance",)),
        (["--to", "onnx", "--device", "cuda:77"], ("cuda:77",)),
        (["--to", "onnx", "--device", "tpu"], ("tpu",)),
        (["--to", "onnx", "--data", "gone"], ("gone", "no such folder")),
        (["--to", "onnx", "--dat", "x"], ("--dat", "--data")),
    ],
)
def test_bad_options(run: Run, place: Path, capsys: Captured, options: list[str], words: tuple[str, ...]) -> None:
    refused(capsys, place, "export", run.path, "--out", "new", *options, words=words)


def test_bad_targets(run: Run, shapes: Path, onnx_folder: Path, place: Path, capsys: Captured) -> None:
    (place / "empty").mkdir()
    (place / "x.safetensors").write_bytes(b"nothing at all")
    (place / "x.pt").write_bytes(b"PK\x03\x04" + bytes(60))
    model = ["export", run.model, "--to", "onnx", "--out", "new"]
    assert "--data" in refused(capsys, place, *model, words=("does not know its data", str(run.model)))
    for target, word in (("gone", "no such"), ("gone.onnx", "exported"), ("empty", "neither"), ("x.safetensors", "safetensors")):
        refused(capsys, place, "export", target, "--to", "onnx", "--data", shapes, "--out", "new", words=(target, word))
    refused(capsys, place, "export", "x.pt", "--to", "onnx", "--data", shapes, words=("x.pt", "pickle"))
    for target in (onnx_folder, onnx_folder / "model.onnx"):
        refused(capsys, place, "export", target, "--to", "openvino", "--data", shapes, words=("exported file", "has no module"))


def test_data_that_do_not_suit(run: Run, shapes: Path, place: Path, capsys: Captured) -> None:
    data = shutil.copytree(shapes, place / "data")
    (data / "val" / "star").rename(data / "val" / "asterisk")
    argv = ["export", run.model, "--to", "onnx", "--data", "data", "--out", "new"]
    refused(capsys, place, *argv, words=("no class 'asterisk'",))
    (data / "val" / "asterisk").rename(data / "val" / "star")
    bad = sorted((data / "val" / "star").iterdir())[0]
    bad.write_bytes(b"no image")
    refused(capsys, place, *argv, words=(bad.name,))


@pytest.mark.parametrize("out", ["taken", "file", "file/below", "run", "dangling"])
def test_an_out_that_is_taken(run: Run, place: Path, capsys: Captured, out: str) -> None:
    """Somebody else's things are never replaced."""
    (place / "taken").mkdir()
    (place / "taken" / "thesis.txt").write_text("years of work")
    (place / "file").write_text("a file")
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text("{}")
    (place / "dangling").symlink_to("nowhere")
    refused(capsys, place, "export", run.path, "--to", "onnx", "--out", out, words=(out.split("/")[0],))


def test_a_disk_that_is_full_leaves_the_earlier_export(run: Run, shapes: Path, copy: Path, monkeypatch: Any, capsys: Captured) -> None:
    import errno

    from saccade.core import files

    def full(self: files.Disk, fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.Disk, "write", full)
    line = refused(capsys, copy.parent, "export", run.path, "--to", "onnx", "--out", copy)
    assert "no space left" in line
    assert saccade.verify(copy, shapes, progress=QUIET).passed


def missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_missing_package_is_one_line_with_what_to_install(
    run: Run, shapes: Path, copy_xml: Path, place: Path, capsys: Captured, monkeypatch: Any
) -> None:
    missing(monkeypatch, "openvino")
    image = sorted((shapes / "val").rglob("*.png"))[0]
    for argv in (
        ["export", run.path, "--to", "openvino", "--out", "new"],
        ["verify", copy_xml, shapes],
        ["predict", copy_xml / "model.xml", image],
        ["eval", copy_xml, shapes],
    ):
        refused(capsys, place, *argv, words=("needs the package openvino", "pip install 'saccade[openvino]'"))


def test_the_extra_is_one_of_the_packages() -> None:
    import tomllib

    from saccade.prediction.opening import RUNTIMES

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for runtime in RUNTIMES.values():
        wanted = project["optional-dependencies"][runtime.extra] if runtime.extra else project["dependencies"]
        assert any(line.startswith(runtime.package + ">=") for line in wanted)


def test_a_package_that_is_broken_is_not_taken_for_missing(run: Run, place: Path, monkeypatch: Any) -> None:
    (place / "openvino.py").write_text("import a_part_that_is_missing")
    missing(monkeypatch, "openvino")
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(ImportError, match="a_part_that_is_missing"):
        saccade.export(run.path, to="openvino", out=place / "new", progress=QUIET)


# verify


def test_verify_where_everything_has_moved(shapes: Path, copy: Path, copy_xml: Path, tmp_path: Path, capsys: Captured) -> None:
    data = shutil.copytree(shapes, tmp_path / "data elsewhere")
    for file in (copy, copy / "model.onnx", copy_xml / "model.xml"):
        assert main(["verify", str(file), str(data), "--json", "--quiet"]) == 0
        told = capsys.readouterr()
        facts = strict(told.out)
        assert set(facts) >= KEYS and told.err == ""
        assert (facts["verdict"], facts["images"], facts["agreement"]) == ("pass", 18, 1.0)
        assert Path(facts["file"]).parent == Path(facts["certificate"]).parent == (copy_xml if file.suffix == ".xml" else copy)
        assert list(checks(facts)) == ["file", "card", "outputs", "metric"]
    stated = strict((copy / "CERTIFICATE.json").read_bytes())
    found = saccade.verify(copy, data, progress=QUIET).facts
    assert (found["metrics"], found["differences"], found["outputs"]) == (stated["metrics"], stated["differences"], stated["outputs"])


def test_verify_in_words(shapes: Path, copy: Path, capsys: Captured) -> None:
    assert main(["verify", str(copy), str(shapes), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["pass", name] for name in ("file", "card", "outputs", "metric")]
    assert "verdict    pass" in lines
    (copy / "model.onnx").write_bytes(one_weight((copy / "model.onnx").read_bytes(), 1e-9))
    assert main(["verify", str(copy), str(shapes), "--quiet"]) == 2
    told = capsys.readouterr()
    assert told.err == "" and told.out.splitlines()[0].startswith("FAIL  file") and "verdict    fail" in told.out.splitlines()


def test_a_failed_verify_certifies_nothing_in_words(shapes: Path, copy: Path, capsys: Captured) -> None:
    (copy / "model.onnx").write_bytes(one_weight((copy / "model.onnx").read_bytes(), 1e-9))
    assert main(["verify", str(copy), str(shapes), "--quiet"]) == 2
    assert not any(line.startswith("certified") for line in capsys.readouterr().out.splitlines())


def one_weight(data: bytes, change: float) -> bytes:
    """The same ONNX file with one of its weights off by a little."""
    model = onnx.load_model_from_string(data)
    (head,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("head.bias")]
    values = numpy_helper.to_array(head).copy()
    values[0] = np.nextafter(values[0], np.float32(np.inf)) if change < 1e-7 else values[0] + change
    head.CopyFrom(numpy_helper.from_array(values, head.name))
    return model.SerializeToString(deterministic=True)


def test_one_weight_changed_so_little_that_no_answer_tells(shapes: Path, copy: Path, capsys: Captured) -> None:
    data = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(one_weight(data, 1e-9))
    assert len((copy / "model.onnx").read_bytes()) == len(data)
    facts = no(capsys, "verify", copy, shapes)
    assert checks(facts) == {"file": False, "card": True, "outputs": True, "metric": True}


def test_one_weight_changed_so_much_that_answers_tell(shapes: Path, copy: Path, capsys: Captured) -> None:
    (copy / "model.onnx").write_bytes(one_weight((copy / "model.onnx").read_bytes(), 0.5))
    assert checks(no(capsys, "verify", copy, shapes))["outputs"] is False


@pytest.mark.parametrize("name", ["model.onnx", "model.bin", "model.xml"])
def test_any_byte_changed_never_passes(shapes: Path, request: Any, capsys: Captured, name: str) -> None:
    """At places over the whole file: it does not load, or it is not the certified one; never a traceback."""
    folder: Path = request.getfixturevalue("copy" if name.endswith("onnx") else "copy_xml")
    whole = (folder / name).read_bytes()
    generator = np.random.Generator(np.random.Philox(5))
    for place in [0, len(whole) - 1, *generator.integers(0, len(whole), 8).tolist()]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(generator.integers(0, 8))
        (folder / name).write_bytes(changed)
        capsys.readouterr()
        code = main(["verify", str(folder), str(shapes), "--json", "--quiet"])
        told = capsys.readouterr()
        assert code == 2, (place, told)
        assert "Traceback" not in told.err
        facts = strict(told.out)
        assert "error" in facts or (facts["verdict"] == "fail" and checks(facts)["file"] is False)


def edited(folder: Path, **changes: Any) -> None:
    stated = json.loads((folder / "CERTIFICATE.json").read_text()) | changes
    (folder / "CERTIFICATE.json").write_text(json.dumps(stated))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no certificate": (lambda folder: (folder / "CERTIFICATE.json").unlink(), "CERTIFICATE.json"),
    "an empty certificate": (lambda folder: (folder / "CERTIFICATE.json").write_bytes(b""), "CERTIFICATE.json"),
    "a cut certificate": (lambda folder: (folder / "CERTIFICATE.json").write_text('{"files": {'), "CERTIFICATE.json"),
    "another JSON": (lambda folder: (folder / "CERTIFICATE.json").write_text("[]"), "CERTIFICATE.json"),
    "a certificate without sums": (lambda folder: edited(folder, files=None), "CERTIFICATE.json"),
    "a certificate without tolerance": (lambda folder: edited(folder, tolerance="0.5"), "CERTIFICATE.json"),
    "a certificate twice": (lambda folder: (folder / "CERTIFICATE.json").write_text('{"files": {}, "files": {}}'), "CERTIFICATE.json"),
    "no reference": (lambda folder: (folder / "reference.npz").unlink(), "reference.npz"),
    "an empty reference": (lambda folder: (folder / "reference.npz").write_bytes(b""), "reference.npz"),
    "a cut reference": (
        lambda folder: (folder / "reference.npz").write_bytes((folder / "reference.npz").read_bytes()[:-40]),
        "reference.npz",
    ),
    "a pickled reference": (lambda folder: pickled(folder / "reference.npz"), "reference.npz"),
    "a reference of other answers": (lambda folder: flipped(folder / "reference.npz"), "reference.npz"),
    "no model": (lambda folder: (folder / "model.onnx").unlink(), ""),
    "an empty model": (lambda folder: (folder / "model.onnx").write_bytes(b""), "model.onnx"),
}


def pickled(path: Path) -> None:
    np.savez(path, sources=np.array([{"a": 1}], object), allow_pickle=True)


def flipped(path: Path) -> None:
    """One bit of an answer: zip's sum tells."""
    data = bytearray(path.read_bytes())
    data[data.index(b"probabilities") + 300] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_one_line(shapes: Path, copy: Path, capsys: Captured, how: str) -> None:
    damage, word = DAMAGE[how]
    damage(copy)
    refused(capsys, copy, "verify", copy if how == "no model" else copy / "model.onnx", shapes, words=(word,))


LIES: dict[str, dict[str, Any]] = {
    "no sums at all": {"files": {}},
    "an unknown precision": {"precision": "fp31"},
    "a tolerance of a thousand": {"tolerance": 1000},
    "a tolerance that is no number": {"tolerance": True},
    "half precision for a whole file": {"precision": "fp16"},
}


@pytest.mark.parametrize("how", LIES)
def test_a_certificate_that_cannot_be_is_no_proof(shapes: Path, copy: Path, how: str) -> None:
    edited(copy, **LIES[how])
    try:
        assert not saccade.verify(copy, shapes, progress=QUIET).passed
    except UserError:
        return


def test_another_file_in_the_same_folder_is_not_certified(shapes: Path, copy: Path, capsys: Captured) -> None:
    (copy / "other.onnx").write_bytes(one_weight((copy / "model.onnx").read_bytes(), 1e-9))
    no(capsys, "verify", copy / "other.onnx", shapes)


def test_data_that_have_changed(shapes: Path, copy: Path, tmp_path: Path, capsys: Captured) -> None:
    data = shutil.copytree(shapes, tmp_path / "data")
    image = sorted((data / "val").rglob("*.png"))[3]
    before = image.read_bytes()
    pixels = np.array(Image.open(image))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    refused(capsys, tmp_path, "verify", copy, data, words=(image.name, "has changed"))
    image.unlink()
    refused(capsys, tmp_path, "verify", copy, data, words=(image.name, "missing"))
    image.write_bytes(before)
    for split in ("train", "val", "test"):
        (data / split / "star").rename(data / split / "stern")
    refused(capsys, tmp_path, "verify", copy, data, words=("stern",))
    for split in ("train", "val", "test"):
        (data / split / "stern").rename(data / split / "star")
    (data / "val" / "star").rename(data / "val" / "x")
    (data / "val" / "ring").rename(data / "val" / "star")
    (data / "val" / "x").rename(data / "val" / "ring")
    refused(capsys, tmp_path, "verify", copy, data)
    refused(capsys, tmp_path, "verify", copy, tmp_path / "gone", words=("gone", "no such folder"))


def test_only_the_compared_images_are_needed(shapes: Path, copy: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes / "val", tmp_path / "part" / "val")
    assert saccade.verify(copy, tmp_path / "part", progress=QUIET).passed


def test_what_is_no_export(run: Run, shapes: Path, place: Path, capsys: Captured) -> None:
    (place / "x.onnx").write_bytes(b"nothing")
    for target in (run.path, run.model, shapes, "gone", "gone.onnx", "x.onnx"):
        refused(capsys, place, "verify", target, shapes, words=(Path(target).name,))


# An exported file in the place of a model


def test_an_export_knows_only_its_precision_and_explains_nothing(onnx_folder: Path, shapes: Path, place: Path, capsys: Captured) -> None:
    image = sorted((shapes / "val").rglob("*.png"))[0]
    refused(capsys, place, "predict", onnx_folder, image, "--precision", "bf16", words=("fp32", "bf16"))
    refused(capsys, place, "explain", onnx_folder, image, words=("exported",))
    refused(capsys, place, "eval", onnx_folder, words=("DATA",))
    assert main(["predict", str(onnx_folder), str(image), "--precision", "fp32", "--quiet"]) == 0


def test_models_tells_what_an_export_descends_from(run: Run, onnx_folder: Path, place: Path, capsys: Captured) -> None:
    (of_run,) = saccade.models(run.path)
    for target in (onnx_folder, onnx_folder / "model.onnx"):
        (found,) = saccade.models(target)
        assert found == replace(of_run, parameters=None) and found.descent
    assert main(["models", str(onnx_folder)]) == 0
    assert "descent  this model" in capsys.readouterr().out
    assert "<td" in saccade.models(onnx_folder)._repr_html_()


# Without torch

WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "captum", "onnxscript"}:
            raise ImportError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocked())
sys.modules["openvino_telemetry"] = None
from saccade.cli.main import main
code = main(sys.argv[1:])
assert not {"torch", "torchvision", "timm"} & set(sys.modules)
sys.exit(code)
"""


def without_torch(cwd: Path, *argv: str | Path) -> Any:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, argv), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, timeout=300, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return strict(done.stdout)


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_verify_predict_and_eval_where_torch_cannot_be_imported(run: Run, shapes: Path, request: Any, tmp_path: Path, target: str) -> None:
    folder: Path = shutil.copytree(request.getfixturevalue(f"{target}_folder"), tmp_path / "export elsewhere")
    data = shutil.copytree(shapes, tmp_path / "data elsewhere")
    file = folder / {"onnx": "model.onnx", "openvino": "model.xml"}[target]
    proved = without_torch(tmp_path, "verify", file, data)
    assert (proved["verdict"], proved["images"]) == ("pass", 18)
    told = without_torch(tmp_path, "predict", file, data / "test")
    wanted = run.predict([data / "test"], precision="fp32", progress=QUIET).to_dict()
    assert [row["source"] for row in told["results"]] == [str(row["source"]) for row in wanted["results"]]
    for row, with_torch in zip(told["results"], wanted["results"], strict=True):
        assert row["label"] == with_torch["label"]
        assert dict(zip(row["labels"], row["scores"], strict=True)) == pytest.approx(
            dict(zip(with_torch["labels"], with_torch["scores"], strict=True)), abs=1e-4
        )
    measured = without_torch(tmp_path, "eval", file, data)
    by_run = saccade.eval(run.path, data, precision="fp32", device="cpu", progress=QUIET).to_dict()
    assert measured["metrics"] == pytest.approx(by_run["metrics"], abs=1e-4)
    assert measured["per_class"] == by_run["per_class"]
    assert set(measured["intervals"]) == set(by_run["intervals"])


@pytest.mark.processes
@pytest.mark.long
def test_openvino_sends_nothing(openvino_folder: Path, shapes: Path, tmp_path: Path) -> None:
    """ "No telemetry" (README): opening an OpenVINO file reaches no network, starts no process, leaves nothing in the home."""
    code = """
        import sys
        seen = []

        def hook(event, args):
            if event in ("socket.getaddrinfo", "socket.connect", "os.fork", "subprocess.Popen") and "platform.py" not in str(args):
                seen.append(f"{event} {args}")
                raise PermissionError(event)

        sys.addaudithook(hook)
        import saccade
        saccade.load(sys.argv[1]).session()
        print([line for line in seen if "uname" not in line and "lscpu" not in line])
    """
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(openvino_folder / "model.xml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), [path.name for path in home.iterdir() if path.name != ".cache"]) == ("[]", [])


# The quickstart, with a run that was trained before


@pytest.fixture(scope="module")
def started(run: Run, onnx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All of `quickstart` but its training."""
    from saccade.api import starting

    place = tmp_path_factory.mktemp("quickstart")
    trained = saccade.load_run(shutil.copytree(run.path, place / "run of shapes", ignore=shutil.ignore_patterns("exports")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "train", lambda data, **options: trained)
        return saccade.quickstart(out=place / "q", device="cpu", progress=QUIET)


def test_quickstart_exports_and_says_so(started: Run) -> None:
    certificate = started.path / "exports" / "onnx-fp32" / "CERTIFICATE.json"
    assert strict(certificate.read_bytes())["verdict"] == "pass"
    (line,) = [line for line in started.summary if line.startswith("exported")]
    assert str(certificate.parent / "model.onnx") in line and "pass, 100.0 % of 18 answers are the same" in line
    said = next(line for line in started.summary if "the exported file's own answers" in line).partition(": ")[2]
    assert said == ", ".join(line.partition(": ")[2] for line in started.summary if line.startswith("predicted"))
    assert (started.path / "predictions-onnx" / "predictions.json").is_file()


def test_quickstart_json_names_the_export(started: Run) -> None:
    assert "model.onnx" in json.dumps(started.to_dict(), default=str)
