"""Writes the table of timm's classification models: `nice -n 15 .venv/bin/python scripts/model_table.py` (about five minutes on one core).

Each architecture is built on torch's meta device, which allocates nothing, and run once, to see that it classifies. timm's wheel ships no
accuracies, so `metric` is null. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg

TABLE = Path(__file__).parents[1] / "src/saccade/tasks/classification/models/table.json"
CLASSES = 1000  # what the published sizes are counted with


def row(name: str) -> dict[str, Any] | None:
    """Name, parameters with 1000 classes, licence of the default weights ("" without any); None where it is no classifier."""
    with torch.device("meta"), torch.no_grad():
        module: Any = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
        outputs = module(torch.empty(1, *module.pretrained_cfg["input_size"]))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (1, CLASSES):
        return None
    config = get_pretrained_cfg(name)
    license = (config.license or "unknown") if config is not None and (config.hf_hub_id or config.url) else ""
    return {"name": name, "parameters": sum(p.numel() for p in module.parameters()), "license": license, "metric": None}


def main() -> None:
    """One row a line, so that a new timm shows as a small difference."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    names = sorted(timm.list_models())
    found = {name: row(name) for name in names}
    others = [name for name in names if found[name] is None]
    header = json.dumps({"timm": timm.__version__, "classes": CLASSES, "others": others})
    lines = ",\n".join(json.dumps(value, separators=(",", ":")) for value in found.values() if value is not None)
    TABLE.write_text(f'{{"header":{header},"models":[\n{lines}\n]}}\n', encoding="utf-8")
    sys.stdout.write(f"{len(names) - len(others)} models in {TABLE}\n")


if __name__ == "__main__":
    main()
