"""`verify`: the proof of an export repeated anywhere, without torch and without the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade.api.exporting import CERTIFICATE, Export, proved_by
from saccade.api.sets import relabelled
from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.progress import Progress, automatic
from saccade.data.opening import open_dataset
from saccade.evaluation import reference
from saccade.evaluation.proof import Case, Check
from saccade.evaluation.reference import Reference
from saccade.prediction.opening import find_export, open_export
from saccade.tasks import room


def verify(file: str | Path, data: str | Path, *, device: str = "auto", seed: int = 0, progress: Progress | None = None) -> Export:
    """Run an exported file over the images that its certificate was made with, and compare with what the original answered then.

    `file`: what `export` wrote, or its folder, with CERTIFICATE.json and reference.npz beside it; `data`: the data set, wherever it lies
    now. The result's `passed` is False where an answer, the metric or the file itself is not what was certified. Raises UserError
    where something is missing.
    """
    progress = progress or automatic()
    found = find_export(file)
    if found is None:
        raise UserError("is no exported file", where=str(file), fix="give the file that `saccade export` wrote")
    opened = open_export(found, device=device)
    certificate = found.parent / CERTIFICATE
    stated = read_certificate(found)
    kept = Reference.read(found.parent / reference.FILE)
    dataset = relabelled(open_dataset(data, task=kept.card.task), kept.card.classes)
    places = reference.find(kept, dataset)
    case = Case(kept, dataset, places, stated["precision"] == "fp32", stated["tolerance"], room(kept.card.task).metrics, seed)
    if stated["precision"] != opened.precision:
        raise DamagedError(f"is of a file in {stated['precision']}, this one is in {opened.precision}", where=str(certificate))
    proved = proved_by(opened, case, progress)
    checks = [_unchanged(found, stated["files"]), *proved.checks]
    passed = all(check.passed for check in checks)
    facts = {"target": opened.target, **proved.to_dict(), "verdict": "pass" if passed else "fail", "runtime": opened.runtime}
    facts |= {"precision": stated["precision"], "tolerance": stated["tolerance"], "checks": [check.to_dict() for check in checks]}
    return Export(found, certificate, facts)


def read_certificate(file: Path) -> dict[str, Any]:
    """The certificate beside an exported file; raises UserError where there is none or it is not one of ours."""
    path = file.parent / CERTIFICATE
    if not path.is_file():
        raise UserError(f"has no {CERTIFICATE} beside it", where=str(file), fix="keep the folder together that `saccade export` wrote")
    stated = files.read_json(path)
    kinds = {"files": dict, "precision": str, "data": str}
    fits = isinstance(stated, dict) and all(isinstance(stated.get(name), kind) for name, kind in kinds.items())
    if not fits or type(stated.get("tolerance")) not in (int, float) or not 0 <= stated["tolerance"] <= 100:
        raise DamagedError("is not a certificate of `saccade export`", where=str(path), fix="export again")
    return stated


def _unchanged(file: Path, stated: dict[str, Any]) -> Check:
    """Whether the file that was run, and all that belongs to it, are the certified ones, to the byte."""
    if file.name not in stated or reference.FILE not in stated:
        return Check("file", False, f"{file.name} is not a file that was certified")
    for name, entry in stated.items():
        expected = entry.get("sha256") if isinstance(entry, dict) else None
        part = file.parent / Path(name).name
        if not part.is_file() or reference.file_sum(part) != expected:
            return Check("file", False, f"{part.name} is not the file that was certified")
    return Check("file", True, "the files are those that were certified")
