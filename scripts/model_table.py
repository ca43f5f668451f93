"""Writes the table of classification models of timm and torchvision (about half an hour on one core):

    nice -n 15 .venv/bin/python scripts/model_table.py results-imagenet.csv COMMIT

Each is built on torch's meta device, which allocates nothing, and run once, to see that it classifies and to count its operations. What
timm has measured of its weights stands in results/results-imagenet.csv of its repository (huggingface/pytorch-image-models) at COMMIT; its
wheel ships none. torchvision's figures are in its tables of weights. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.models import get_pretrained_cfg
from torch.utils.flop_counter import FlopCounterMode

TABLE = Path(__file__).parents[1] / "src/saccade/tasks/classification/models/table.json"
CLASSES = 1000  # what the published sizes are counted with
SWAG = "cc-by-nc-4.0"  # of the weights whose licence torchvision names by the address of SWAG's


def measured(module: torch.nn.Module, size: tuple[int, ...]) -> int | None:
    """Operations for one image [3, height, width], two to a multiplication with addition; None where it is no classifier."""
    module.requires_grad_(False)  # the counter stumbles over parameters that are handed on
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = module(torch.empty(1, *size))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (1, CLASSES):
        return None
    return int(counter.get_total_flops())


def of_timm(name: str, results: dict[tuple[str, int], float]) -> dict[str, Any] | None:
    """Name, parameters with 1000 classes, operations, input, licence of the default weights ("" without any), and what is measured of them
    and of all others, by tag, at their own size; None where it is no classifier."""
    with torch.device("meta"):
        module: Any = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
    size = tuple(module.pretrained_cfg["input_size"])
    flops = measured(module, size)
    if flops is None:
        return None
    config: Any = get_pretrained_cfg(name)
    published = config is not None and bool(config.hf_hub_id or config.url)
    license = (config.license or "unknown") if published else ""
    tags = figures(name, results)
    return {
        "name": name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": flops,
        "size": list(size[1:]),
        "license": license,
        "metric": tags.get(config.tag) if published and size == tuple(config.input_size) else None,
        "tags": tags,
    }


def of_torchvision(name: str) -> dict[str, Any]:
    """The same of one of torchvision, of its default weights."""
    best = torchvision.models.get_model_weights(name).DEFAULT
    shape = best.transforms().crop_size * 2
    alone = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # Not on the meta device from the start: some compute their widths with tensors.
    module: Any = torchvision.models.get_model(name, weights=None, **alone, **({"image_size": shape[0]} if name[:3] == "vit" else {}))
    flops = measured(module.eval().to("meta"), (3, *shape[:2]))
    return {
        "name": f"torchvision/{name}",
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": flops,
        "size": list(shape[:2]),
        "license": SWAG if "SWAG" in best.meta.get("license", "") else "bsd-3-clause",
        "metric": round(best.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
        "file": best.url.rpartition("/")[2],
    }


def figures(name: str, results: dict[tuple[str, int], float]) -> dict[str, float]:
    """What is measured of each set of weights of a network of timm, by its tag, at the size of its own input."""
    found = {}
    for tagged in timm.list_pretrained(f"{name}.*"):
        config: Any = get_pretrained_cfg(tagged)
        if (top1 := results.get((tagged, config.input_size[1]))) is not None:
            found[config.tag] = top1
    return found


def published(file: str) -> dict[tuple[str, int], float]:
    """Top-1 accuracy, by `name.tag` and the side of the images: many are measured at two sizes."""
    with open(file, encoding="utf-8", newline="") as opened:
        return {(row["model"], int(row["img_size"])): round(float(row["top1"]) / 100, 5) for row in csv.DictReader(opened)}


def main(file: str, commit: str) -> None:
    """One row a line, so that a new version shows as a small difference."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results = published(file)
    names = sorted(timm.list_models())
    found = {name: of_timm(name, results) for name in names}
    others = [name for name in names if found[name] is None]
    theirs = [of_torchvision(name) for name in torchvision.models.list_models(module=torchvision.models)]
    header = {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0], "classes": CLASSES}
    header |= {"results": f"huggingface/pytorch-image-models@{commit} results/results-imagenet.csv", "others": others}
    rows = [value for value in found.values() if value is not None] + theirs
    lines = ",\n".join(json.dumps(value, separators=(",", ":")) for value in rows)
    TABLE.write_text(f'{{"header":{json.dumps(header)},"models":[\n{lines}\n]}}\n', encoding="utf-8")
    sys.stdout.write(f"{len(rows)} models in {TABLE}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
