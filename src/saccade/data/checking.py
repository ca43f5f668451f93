"""`data check`: a set examined, its findings on a page, and a repaired copy beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade.core.errors import UserError
from saccade.core.progress import Progress
from saccade.data import doctor, formats
from saccade.data.annotations import Annotations
from saccade.data.doctor import doubts, page, repair
from saccade.data.doctor.doubts import Predictor
from saccade.data.findings import ERROR, KINDS
from saccade.data.writing import Output, check_new, new_folder


def check(annotations: Annotations, out: Path | None, fix: Path | None, run: Predictor | None, progress: Progress) -> dict[str, Any]:
    """As `saccade.data.check` says."""
    if fix is not None:
        check_new(fix)
        if annotations.task not in formats.find(annotations.format).TASKS:
            raise UserError(f"{annotations.format} is read, but not written, for {annotations.task}", where="--fix")
    doubted = doubts.check(annotations, run, progress) if run is not None else []
    report = doctor.examine(annotations, progress=progress).with_doubts(doubted)
    facts = report.to_dict()
    if out is not None:
        facts["page"] = str(page.write(out, annotations, report))
    if fix is not None:
        facts["fixed"] = _fixed(annotations, report, fix, progress)
    return facts


def _fixed(annotations: Annotations, report: doctor.Report, fix: Path, progress: Progress) -> dict[str, Any]:
    repaired, counts = repair.fix(annotations, report.findings)
    progress.start("writing the repaired set", len(repaired.items), "images")
    with new_folder(fix) as folder:
        formats.find(annotations.format).write(repaired, Output(folder, repaired, progress))
    progress.finish()
    left = report.errors - sum(count for code, count in counts.items() if KINDS[code].severity == ERROR)
    return {"path": str(fix), "repaired": counts, "errors_left": left}
