"""COCO's figures: those of pycocotools on cocoapi's own files, those of faster-coco-eval on edge cases, and of integer weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.core import average_precision as ap
from saccade.core import run_lengths
from saccade.core.average_precision import AveragePrecision, Image
from saccade.core.run_lengths import Rle
from saccade.data import records, shapes
from saccade.data.annotations import Object

TRUTH = Path(__file__).parents[3] / "shared" / "data" / "metrics-truth" / "cocoapi"
# Published in cocoapi's val2014_fake_eval_res.txt: AP, AP50, AP75, S, M, L, AR1, AR10, AR100, S, M, L.
PUBLISHED = {
    "bbox": (0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564),
    "segm": (0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381),
}


def figures(images: list[Image], classes: int, weights: Any = None) -> list[float]:
    """The twelve, -1 where undefined."""
    precision, recall = AveragePrecision(images, classes).tables(weights)

    def mean(values: Any) -> float:
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else -1.0

    aps = [mean(precision[:, 0]), mean(precision[:, 0, 0]), mean(precision[:, 0, 5]), *(mean(precision[:, a]) for a in (1, 2, 3))]
    return [*aps, *(mean(recall[:, 0, :, m]) for m in range(3)), *(mean(recall[:, a, :, 2]) for a in (1, 2, 3))]


def theirs(truth: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox") -> list[float]:
    gt = COCO(truth)
    run = COCOeval_faster(gt, gt.loadRes(found), kind, print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return [float(value) for value in run.stats[:12]]


def corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def masks_of(rows: list[dict[str, Any]], size: tuple[int, int]) -> list[Rle]:
    """As the reader of COCO files draws them."""
    tree: Any = None  # which pictures would be read from
    return [shapes.rle(Object(0, None, records.shape(one["segmentation"], size)), size, tree) for one in rows]


def images_of(truth: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox") -> tuple[list[Image], int]:
    ids = sorted(one["id"] for one in truth["categories"])
    place = {one: number for number, one in enumerate(ids)}
    images = []
    for image, size in sorted((one["id"], (one["height"], one["width"])) for one in truth["images"]):
        here = [one for one in truth["annotations"] if one["image_id"] == image]
        there = [one for one in found if one["image_id"] == image]
        boxes = np.array([corners(one.get("bbox", [0, 0, 1, 1])) for one in there], np.float64).reshape(-1, 4)
        truths = np.array([corners(one["bbox"]) for one in here], np.float64).reshape(-1, 4)
        crowd = np.array([bool(one["iscrowd"]) for one in here], bool)
        near, areas = ap.overlaps(boxes, truths, crowd), ap.area(boxes)
        if kind == "segm":
            drawn = masks_of(there, size)
            near = run_lengths.overlaps(drawn, masks_of(here, size), crowd)
            areas = np.array([run_lengths.covered(mask) for mask in drawn], np.float64)
        images.append(
            Image(
                np.array([one["score"] for one in there], np.float64),
                np.array([place[one["category_id"]] for one in there], np.int64),
                areas,
                np.array([place[one["category_id"]] for one in here], np.int64),
                np.array([one["area"] for one in here], np.float64),
                crowd,
                np.zeros(len(here), bool),
                near,
            )
        )
    return images, len(ids)


@pytest.mark.skipif(not TRUTH.is_dir(), reason="the project's shared data are not here")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_cocoapis_own_results(kind: str) -> None:
    truth = json.loads((TRUTH / "instances_val2014_100.json").read_text())
    found = json.loads((TRUTH / f"instances_val2014_fake{kind}100_results.json").read_text())
    shown = {one["id"] for one in truth["images"]}
    found = [one for one in found if one["image_id"] in shown]
    ours = figures(*images_of(truth, found, kind))
    assert ours == pytest.approx(PUBLISHED[kind], abs=6e-4)
    assert ours == pytest.approx(theirs(truth, found, kind), abs=1e-6)


def scenes(seed: int, images: int = 6, classes: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truths of all sizes, crowds among them; detections that are moved truths, doubles and inventions; many scores are equal."""
    draws = np.random.Generator(np.random.Philox(seed))
    annotations, found = [], []
    for image in range(images):
        for _ in range(int(draws.integers(0, 7))):
            side = float(draws.choice([8, 31, 32, 33, 60, 96, 97, 150]))
            box = [*np.round(draws.uniform(0, 200, 2), 1).tolist(), side, side * float(draws.choice([0.5, 1, 2]))]
            category = int(draws.integers(1, classes + 1))
            crowd = bool(draws.random() < 0.2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
            for _ in range(int(draws.integers(0, 3))):
                moved = (np.array(box) + draws.normal(0, side / 15, 4)).clip(0.5).round(1).tolist()
                other = category if draws.random() < 0.9 else int(draws.integers(1, classes + 1))
                found.append({"image_id": image, "category_id": other, "bbox": moved, "score": round(float(draws.random()), 1)})
        for _ in range(int(draws.integers(0, 3))):
            box = [*draws.uniform(0, 200, 2).round(1).tolist(), *draws.uniform(5, 120, 2).round(1).tolist()]
            found.append(
                {
                    "image_id": image,
                    "category_id": int(draws.integers(1, classes + 1)),
                    "bbox": box,
                    "score": round(float(draws.random()), 1),
                }
            )
    truth = {
        "images": [{"id": image, "height": 400, "width": 400} for image in range(images)],
        "categories": [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
        "annotations": annotations,
    }
    return truth, found


@settings(deadline=None)
@given(st.integers(0, 1 << 32))
def test_edge_cases_as_faster_coco_eval(seed: int) -> None:
    truth, found = scenes(seed)
    if not found:
        return
    assert figures(*images_of(truth, found)) == pytest.approx(theirs(truth, found), abs=1e-6)


def test_an_image_of_weight_two_stands_there_twice() -> None:
    truth, found = scenes(5)
    images, classes = images_of(truth, found)
    weights = np.array([0, 2, 1, 3, 1, 0])
    twice = [image for image, n in zip(images, weights, strict=True) for _ in range(n)]
    assert figures(images, classes, weights) == pytest.approx(figures(twice, classes), abs=1e-12)


def test_nothing_found_and_nothing_there() -> None:
    truth, _ = scenes(1)
    nothing = images_of(truth, [])
    assert figures(*nothing)[:3] == [0, 0, 0]
    assert figures([], 2) == [-1] * 12
    empty = images_of({**truth, "annotations": []}, [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}])
    assert figures(*empty) == [-1] * 12


def test_more_than_a_hundred_do_not_count() -> None:
    truth = {
        "images": [{"id": 0, "height": 400, "width": 400}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}],
    }
    wrong = [{"image_id": 0, "category_id": 1, "bbox": [200, 200, 9, 9], "score": 0.9} for _ in range(100)]
    found = [*wrong, {"image_id": 0, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.1}]
    assert figures(*images_of(truth, found))[0] == 0
    assert figures(*images_of(truth, found[1:]))[0] == pytest.approx(0.01, abs=1e-3)
    _, hits, false = ap.curve(AveragePrecision(*images_of(truth, found)).matches[0])
    assert (hits[-1], false[-1]) == (1, 100), "but for thresholds and counts of errors they do"


def test_the_curve_counts_each_detection_once() -> None:
    truth, found = scenes(5)
    for one in AveragePrecision(*images_of(truth, found)).matches:
        scores, hits, false = ap.curve(one)
        assert (np.diff(scores) <= 0).all()
        assert (np.diff(hits + false) == 1).all()
        assert hits[-1:].sum() <= one.positives[:, 0].sum()
