"""Which runtime takes this file? One row a target; its runtime is imported when a file of its kind is opened."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

from saccade.core.errors import UserError
from saccade.prediction.session import ExportedFile


@dataclass(frozen=True)
class Runtime:
    """suffix: of the files it takes; module, kind: the class that opens them; package, extra: what must be installed, and as what;
    silenced: a package that would send telemetry when that one is imported."""

    suffix: str
    module: str
    kind: str
    package: str
    extra: str = ""
    silenced: str = ""


RUNTIMES = {
    "onnx": Runtime(".onnx", "saccade.prediction.onnx_file", "OnnxFile", "onnxruntime"),
    "openvino": Runtime(".xml", "saccade.prediction.openvino_file", "OpenVinoFile", "openvino", "openvino", "openvino_telemetry"),
}
STEM = "model"  # of the file that `saccade export` writes


def find_export(path: str | Path) -> Path | None:
    """The exported file that a path names: itself, or the one in an export's folder; None where it is neither."""
    path = Path(path)
    if path.suffix in {runtime.suffix for runtime in RUNTIMES.values()} and not path.is_dir():
        return path
    return next((file for one in RUNTIMES.values() if (file := path / f"{STEM}{one.suffix}").is_file()), None)


def open_export(path: Path, *, device: str = "auto") -> ExportedFile:
    """Open and check an exported file; raises UserError where it is none, or where its runtime is not installed."""
    target, runtime = next((name, one) for name, one in RUNTIMES.items() if one.suffix == path.suffix)
    if not path.is_file():
        raise UserError("no such file", where=str(path))
    require(target)
    opened: ExportedFile = getattr(importlib.import_module(runtime.module), runtime.kind)(path, device)
    return opened


def require(target: str) -> None:
    """Raise the one line that says what to install where a target's runtime is missing."""
    runtime = RUNTIMES[target]
    if runtime.silenced:
        sys.modules.setdefault(runtime.silenced, None)  # type: ignore[arg-type]  # an import of it fails, and OpenVINO does without
    try:
        importlib.import_module(runtime.package)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != runtime.package:
            raise
        wanted = f"saccade[{runtime.extra}]" if runtime.extra else runtime.package
        raise UserError(f"{target} needs the package {runtime.package}, which is not installed", fix=f"pip install '{wanted}'") from None
