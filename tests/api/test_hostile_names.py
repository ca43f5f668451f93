"""Names with quotes, spaces, line breaks, tags, leading dashes and bytes that are no Unicode, through every verb and page."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

import saccade
from saccade import Run
from saccade.cli.main import main
from saccade.core.progress import Silent

QUIET = Silent()
TAG = '<b onclick="x()">&\''


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def spelled(path: Path) -> str:
    """How JSON writes a file name: what is not Unicode is spelled out."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def test_training_evaluating_and_the_record(hostile_run: Run, hostile_folder: Path) -> None:
    found = hostile_run.evaluate(progress=QUIET)
    assert sorted(row["class"] for row in found.per_class) == sorted(path.name for path in hostile_folder.iterdir())
    rows = [json.loads(line) for line in (hostile_run.path / "predictions" / "val.jsonl").read_text().splitlines()]
    names = {spelled(path.relative_to(hostile_folder)) for path in files(hostile_folder)}
    assert len(rows) == found.images and {row["source"] for row in rows} <= names
    again = saccade.eval_predictions(hostile_run.path / "predictions" / "val.jsonl", hostile_folder, progress=QUIET)
    assert again.metrics["accuracy"] == pytest.approx(found.metrics["accuracy"])
    assert saccade.load(hostile_run.model).card.classes == tuple(sorted(path.name for path in hostile_folder.iterdir()))


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_predicting_into_each_format(hostile_run: Run, hostile_folder: Path, tmp_path: Path, form: str) -> None:
    answers = saccade.predict(hostile_run.path, hostile_folder, out=tmp_path / "o", format=form, device="cpu", progress=QUIET)
    assert len(answers) == 44 and answers.failed == ()
    text = (tmp_path / "o" / f"predictions.{form}").read_text(encoding="utf-8")
    wanted = [spelled(path) for path in files(hostile_folder)]
    if form == "csv":
        rows: list[Any] = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["source"].removeprefix("'") for row in rows] == wanted
        return
    rows = json.loads(text)["results"] if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert [row["source"] for row in rows] == wanted


def test_the_command_line_keeps_to_one_line_an_image(
    hostile_run: Run, hostile_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hostile_folder / "-rf")
    names = sorted(os.listdir("."))
    assert main(["predict", str(hostile_run.path), "--quiet", "--device", "cpu", "--", *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names) == 11
    assert lines[names.index("-dash.png")].startswith("-dash.png: ")
    assert main(["predict", str(hostile_run.path), "--json", "--quiet", "--device", "cpu", "--", *names]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["source"] for row in rows] == [spelled(Path(name)) for name in names]
    assert main(["eval", str(hostile_run.path), "--quiet", "--device", "cpu"]) == 0
    assert TAG in capsys.readouterr().out
    assert main(["explain", str(hostile_run.path), "--quiet", "--device", "cpu", "--class", TAG, "--", *names[:3]]) == 0
    assert capsys.readouterr().out


def test_explaining_writes_names_that_every_file_system_takes(hostile_run: Run, hostile_folder: Path, tmp_path: Path) -> None:
    found = saccade.explain(hostile_run.path, files(hostile_folder)[:11], out=tmp_path / "e", device="cpu", progress=QUIET)
    written = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert len(written) == 22
    assert not any(set(name) & set("\"'<>|*?:\n\\/ $%") or name.startswith("-") for name in written)
    json.dumps(found.to_dict(), allow_nan=False).encode()


def test_notebooks_show_well_formed_html_with_names_escaped(hostile_run: Run, hostile_folder: Path, page: Any) -> None:
    some = files(hostile_folder)[9:14]
    answers = hostile_run.predict([*some, hostile_folder / "<i>gone</i>.png"], progress=QUIET)
    explained = hostile_run.explain(some, progress=QUIET)
    model = saccade.load(hostile_run.path, device="cpu")
    shown = {
        "run": hostile_run,
        "model": model,
        "evaluation": hostile_run.evaluate(progress=QUIET),
        "predictions": answers,
        "explanations": explained,
        "result": answers[0],
    }
    for name, thing in shown.items():
        text = thing._repr_html_()
        found = page(text)
        assert found.faults == [], name
        assert not {"script", "b onclick", "i", "u"} & set(found.tags), name
        assert not [key for key, _ in found.attributes if key.startswith("on")], name
        assert found.text.strip(), name
    assert TAG in page(model._repr_html_()).text
    assert "run & <u>co</u>" in page(hostile_run._repr_html_()).text
    assert TAG in page(shown["evaluation"]._repr_html_()).text
    assert str(some[0]) in page(answers._repr_html_()).text
    assert "<i>gone</i>.png" in page(answers._repr_html_()).text, "failures are shown too"
    assert page(explained._repr_html_()).tags.count("img") == len(some)


def test_the_report_escapes_every_name_and_its_commands_can_be_pasted(hostile_run: Run, page: Any) -> None:
    import html
    import shlex

    text = hostile_run.report.read_text()
    found = page(text)
    assert found.faults == []
    assert "script" not in found.tags and not [key for key, _ in found.attributes if key.startswith("on")]
    commands = [html.unescape(part.split("</pre>")[0]) for part in text.split("<pre>")[1:]]
    run_commands = [shlex.split(line) for part in commands for line in part.splitlines() if line.startswith("saccade")]
    assert run_commands
    assert all(len(words) > 2 for words in run_commands)
    assert any(str(hostile_run.path) in words for words in run_commands), "quoted as the shell wants it"
    assert any(hostile_run.config.data in words for words in run_commands)
