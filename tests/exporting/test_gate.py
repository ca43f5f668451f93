"""No proof, no file: exports broken in every way that we could think of, held against `export` and `verify`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import saccade
from exporting import breaking
from saccade.cli.main import main
from saccade.core.card import Card
from saccade.core.progress import Silent
from saccade.exporting import onnx as onnx_target
from saccade.exporting import targets
from saccade.exporting.graph import Graph, assemble
from saccade.tasks import room

pytestmark = pytest.mark.long  # each of them is short, together they take a minute

Captured = pytest.CaptureFixture[str]
Break = Callable[..., None]

KEYS = {"file", "target", "metrics", "agreement", "verdict", "certificate"}
# What costs answers, and so is caught in half precision too, where outputs may differ.
COSTLY = ("swapped_channels", "transposed_output", "permuted_output", "one_class_missing", "not_a_number", "another_name", "lost_weights")
COSTLY_CARDS = ("permuted classes", "stale class", "twice the size", "one class fewer")


@pytest.fixture
def broken(build: Any, monkeypatch: pytest.MonkeyPatch) -> Break:
    """`broken(graph="swapped_channels")` or `broken(card="stale class")`: from now on exports are."""

    def by(graph: str = "", card: str = "") -> None:
        def changed(asked: Graph) -> Any:
            model, dynamic = build(asked)
            if graph:
                breaking.GRAPHS[graph](model)
            return model, dynamic

        write = targets.write

        def other_card(to: str, asked: Graph, precision: str) -> Any:
            return write(to, replace(asked, card=breaking.CARDS[card](asked.card)) if card else asked, precision)

        monkeypatch.setattr(onnx_target, "build", changed)
        monkeypatch.setattr(targets, "write", other_card)

    return by


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


def gate(capsys: Captured, *argv: str | Path) -> dict[str, Any]:
    """The object of a gate that says no: exit code 2, complete, one line, no error."""
    capsys.readouterr()
    code = main([*map(str, argv), "--json", "--quiet"])
    told = capsys.readouterr()
    assert code == 2, told.err
    assert told.out.count("\n") == 1 and told.err == ""
    facts: dict[str, Any] = strict(told.out)
    assert set(facts) >= KEYS and "error" not in facts
    assert facts["verdict"] == "fail"
    assert set(facts["metrics"]) == {"reference", "exported"}
    assert any(not check["passed"] for check in facts["checks"])
    return facts


def refused(capsys: Captured, run: saccade.Run, place: Path, target: str, precision: str) -> dict[str, Any]:
    """`export` must say no and write nothing; an earlier export in that place stays as it is."""
    out = place / "exports" / f"{target}-{precision}"
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    facts = gate(capsys, "export", run.path, "--to", target, "--precision", precision, "--device", "cpu", "--out", out)
    assert (facts["file"], facts["certificate"], facts["target"]) == (None, None, target)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    if not before:
        assert list(place.iterdir()) == []
    return facts


def put_in_place(folder: Path, files: dict[str, bytes], *, certified: bool) -> None:
    """The files of another export under a certificate; `certified`: their sums are written into it, as a careful liar would."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if certified:
        stated = json.loads((folder / "CERTIFICATE.json").read_text())
        stated["files"] |= {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
        (folder / "CERTIFICATE.json").write_text(json.dumps(stated))


@pytest.fixture
def write(run: saccade.Run) -> Callable[[str, str], dict[str, bytes]]:
    """`write("onnx", "fp32")` -> the files that an export of the run would have now."""
    model = saccade.load(run.path, device="cpu")
    assert isinstance(model, saccade.Model)
    graph = assemble(model.module, room("classify").decode, model.card)
    return lambda target, precision: targets.write(target, graph, precision).files


REQUIRED = ("other_normalisation", "swapped_channels", "shrunk_inside", "transposed_output", "fixed_batch", "not_a_number", "another_name")
CASES = [("onnx", "fp32", {"graph": name}) for name in breaking.GRAPHS] + [("onnx", "fp32", {"card": name}) for name in breaking.CARDS]
CASES += [("openvino", "fp32", {"graph": name}) for name in REQUIRED] + [("openvino", "fp32", {"card": "permuted classes"})]
CASES += [(target, "fp16", {"graph": "swapped_channels"}) for target in ("onnx", "openvino")]
MORE = [("openvino", "fp32", how) for _, _, how in CASES[: len(breaking.GRAPHS) + len(breaking.CARDS)]]
MORE += [(target, "fp16", {"graph": name}) for target in ("onnx", "openvino") for name in COSTLY]
MORE += [(target, "fp16", {"card": name}) for target in ("onnx", "openvino") for name in COSTLY_CARDS]
MORE = [one for one in MORE if one not in CASES]


def cases() -> Iterator[Any]:
    """Each break for ONNX, the required ones for OpenVINO and in half precision; the rest of the product takes long."""
    for target, precision, how in CASES + MORE:
        name = next(iter(how.values()))
        marks = [pytest.mark.long] if (target, precision, how) in MORE else []
        yield pytest.param(target, precision, how, marks=marks, id=f"{target}-{precision}-{name}")


@pytest.mark.parametrize(("target", "precision", "how"), list(cases()))
def test_a_broken_export_is_caught_by_export_and_by_verify(
    run: saccade.Run,
    data: Path,
    broken: Break,
    write: Any,
    export_copy: Any,
    tmp_path: Path,
    capsys: Captured,
    target: str,
    precision: str,
    how: dict[str, str],
) -> None:
    """`verify` is asked in the hardest case: the certificate names the sums of the broken files."""
    good = export_copy(f"{target}-{precision}")
    broken(**how)
    (tmp_path / "new").mkdir()
    refused(capsys, run, tmp_path / "new", target, precision)
    files = write(target, precision)
    put_in_place(good, files, certified=True)
    told = gate(capsys, "verify", good, data, "--device", "cpu")
    assert told["file"] == str(good / next(iter(files)))
    assert (told["checks"][0]["name"], told["checks"][0]["passed"]) == ("file", True)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_transposed_output_is_caught_by_verify(
    data: Path, broken: Break, write: Any, export_copy: Any, capsys: Captured, target: str
) -> None:
    good = export_copy(f"{target}-fp32")
    broken(graph="transposed_output")
    put_in_place(good, write(target, "fp32"), certified=True)
    gate(capsys, "verify", good, data)


def test_a_transposed_output_is_caught_where_all_batches_are_full(
    run: saccade.Run, data: Path, broken: Break, tmp_path: Path, capsys: Captured
) -> None:
    """Sixteen images are two batches of eight: their parts fit together, three images of eight classes."""
    target = shutil.copytree(data, tmp_path / "sixteen")
    for path in sorted((target / "val").rglob("*.png"))[:5]:
        path.unlink()
    broken(graph="transposed_output")
    facts = gate(capsys, "export", run.path, "--to", "onnx", "--data", target, "--out", tmp_path / "new")
    assert facts["images"] == 16 and not (tmp_path / "new").exists()


def test_an_earlier_export_stays_where_a_new_one_fails(
    run: saccade.Run, data: Path, broken: Break, export_copy: Any, tmp_path: Path, capsys: Captured
) -> None:
    good = export_copy("onnx-fp32")
    broken(graph="swapped_channels")
    facts = gate(capsys, "export", run.path, "--to", "onnx", "--out", good)
    assert facts["file"] is None
    assert saccade.verify(good, data, device="cpu", progress=Silent()).passed
    assert sorted(path.name for path in good.parent.iterdir()) == [good.name]
    assert not (run.path / "exports").exists()


def test_what_failed_is_said(run: saccade.Run, broken: Break, tmp_path: Path, capsys: Captured) -> None:
    broken(graph="swapped_channels")
    facts = refused(capsys, run, tmp_path, "onnx", "fp32")
    states = {check["name"]: check["passed"] for check in facts["checks"]}
    assert states == {"card": True, "outputs": False, "metric": False}
    assert facts["metrics"]["reference"]["accuracy"] == 1
    assert facts["metrics"]["exported"]["accuracy"] == pytest.approx(1 / 3), "blue and red are taken for each other"
    assert facts["agreement"] == pytest.approx(1 / 3)
    row = facts["differences"]["accuracy"]
    assert row["value"] == pytest.approx(-2 / 3) and row["low"] <= row["value"] <= row["high"] < 0
    assert main(["export", str(run.path), "--to", "onnx", "--out", str(tmp_path / "x"), "--quiet"]) == 2
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[0].startswith("pass  card") and lines[1].startswith("FAIL  outputs") and lines[2].startswith("FAIL  metric")
    assert "1.0000 -> 0.3333, 66.67 points lost; at most 0.5 may be lost" in lines[2]
    assert any(line.split() == ["verdict", "fail"] for line in lines)
    assert "nothing was written" in lines[-1]


def test_a_graph_that_is_right_at_its_own_size_only_fails_by_its_outputs_elsewhere(
    run: saccade.Run, broken: Break, tmp_path: Path, capsys: Captured
) -> None:
    broken(graph="only_right_at_its_size")
    facts = refused(capsys, run, tmp_path, "onnx", "fp32")
    states = {check["name"]: check["passed"] for check in facts["checks"]}
    assert states == {"card": True, "outputs": False, "metric": True}
    excess = {(tuple(row["size"]), row["batch"]): row["excess"] for row in facts["outputs"]}
    assert len(excess) == 4
    assert all((value > 0) == (size != (17, 11)) for (size, _), value in excess.items()), excess


def test_a_graph_that_mixes_the_images_of_a_batch_fails_by_its_outputs(
    run: saccade.Run, broken: Break, tmp_path: Path, capsys: Captured
) -> None:
    broken(graph="depends_on_neighbours")
    facts = refused(capsys, run, tmp_path, "onnx", "fp32")
    rows = [row for row in facts["outputs"] if row["size"] == [17, 11]]
    assert [row["batch"] for row in rows] == [8, 1]
    assert rows[0]["excess"] > 0


@pytest.mark.parametrize("name", ["a_little_off", "other_normalisation"])
def test_half_precision_may_differ_as_long_as_the_answers_hold(run: saccade.Run, broken: Break, tmp_path: Path, name: str) -> None:
    """The same change that float32 refuses (above)."""
    broken(graph=name)
    found = saccade.export(run.path, to="onnx", precision="fp16", device="cpu", out=tmp_path / "half", progress=Silent())
    assert found.passed
    assert {check["name"] for check in found.facts["checks"]} == {"card", "outputs", "metric"}


def test_tolerance_is_in_points_of_the_metric(run: saccade.Run, broken: Break, tmp_path: Path) -> None:
    """Swapped channels cost 66.67 points of accuracy: half precision may lose as much as is allowed, float32 never."""
    broken(graph="swapped_channels")

    def passes(precision: str, tolerance: float) -> bool:
        options = {"precision": precision, "tolerance": tolerance, "device": "cpu", "out": tmp_path / f"{precision}-{tolerance}"}
        return saccade.export(run.path, to="onnx", **options, progress=Silent()).passed

    assert [passes("fp16", points) for points in (66.0, 67.0, 100.0)] == [False, True, True]
    assert not passes("fp32", 100.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp16-100.0", "fp16-67.0"]


def test_the_breaks_themselves_load(write: Any, broken: Break, tmp_path: Path) -> None:
    """Every break is one that a runtime runs, so that it is the proof that catches it, not a file that cannot be opened."""
    unloadable = []
    for name in breaking.GRAPHS:
        broken(graph=name)
        data = write("onnx", "fp32")["model.onnx"]
        onnx.checker.check_model(onnx.load_model_from_string(data))
        (tmp_path / "model.onnx").write_bytes(data)
        try:
            saccade.load(tmp_path / "model.onnx").session()
        except saccade.UserError as error:
            unloadable.append((name, str(error)))
    assert unloadable == []


def test_the_card_breaks_are_cards(run: saccade.Run) -> None:
    card = saccade.load(run.path, device="cpu").card
    for name, change in breaking.CARDS.items():
        changed = change(card)
        assert changed != card, name
        assert Card.from_json(changed.to_json()) == changed, name


def test_a_graph_that_its_runtime_refuses_is_a_verdict_too(
    run: saccade.Run, build: Any, monkeypatch: Any, tmp_path: Path, capsys: Captured
) -> None:
    def unknown_operator(graph: Graph) -> Any:
        model, dynamic = build(graph)
        model.graph.node[-1].op_type = "SoftmaxOfTomorrow"
        return model, dynamic

    monkeypatch.setattr(onnx_target, "build", unknown_operator)
    refused(capsys, run, tmp_path, "onnx", "fp32")
