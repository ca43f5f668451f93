"""prove: every difference between two models becomes a check that fails, on sessions of NumPy whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.progress import Silent
from saccade.data.dataset import Dataset
from saccade.data.opening import open_dataset
from saccade.data.tree import FolderTree
from saccade.evaluation import comparison, proof, reference
from saccade.evaluation.proof import ATOL, RTOL, Case, Proof, prove
from saccade.evaluation.reference import FEW
from saccade.tasks.classification.metrics import ClassificationMetric

CLASSES = ("blue", "green", "red")
CARD = Card("classify", CLASSES, {"name": "brightest"}, InputSpec(3, (5, 7)))
SIZES = ((5, 7), (9, 4))
Change = Callable[[NDArray[Any], tuple[int, int]], NDArray[Any]]


class Brightest:
    """Answers with the brightest channel, softly; `change(probabilities, size)` spoils it."""

    streams = 1

    def __init__(self, card: Card = CARD, change: Change | None = None, *, batch: int = 4, name: str = "probabilities") -> None:
        self.card, self.change, self.batch, self.name = card, change, batch, name
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        self.shapes.append(images.shape)
        means = images.mean(axis=(2, 3))[:, ::-1] + 20.0
        answers = (means / means.sum(axis=1, keepdims=True)).astype(np.float32)
        return {self.name: answers if self.change is None else self.change(answers, images.shape[2:])}


class Told(Silent):
    """A Progress that counts."""

    def __init__(self) -> None:
        self.total, self.done, self.finished = 0, 0, 0

    def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
        self.total = total or 0

    def advance(self, n: int = 1) -> None:
        self.done += n

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 50)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twenty images of three plain colours; the last one stands in the wrong folder."""
    place = tmp_path_factory.mktemp("proof")
    for number in range(20):
        label = number % 3 if number < 19 else 2
        (place / "val" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        colour = [0, 0, 0]
        colour[2 - number % 3] = 150 + number
        Image.new("RGB", (7, 5), tuple(colour)).save(place / "val" / CLASSES[label] / f"{number:02d}.png")
    return open_dataset(place)


def case(dataset: Dataset, original: Brightest | None = None, *, exact: bool = True, tolerance: float = 0.5, seed: int = 0) -> Case:
    places = np.arange(len(dataset))
    kept = reference.answer(original or Brightest(), dataset, places, SIZES, Silent())
    return Case(kept, dataset, places, exact, tolerance, lambda card: ClassificationMetric(card.classes), seed)


def states(found: Proof) -> dict[str, bool]:
    return {check.name: check.passed for check in found.checks}


def message(found: Proof, name: str) -> str:
    (said,) = [check.message for check in found.checks if check.name == name]
    return said


def test_the_same_model_passes_and_says_how(dataset: Dataset) -> None:
    session, told = Brightest(batch=8), Told()
    found = prove(session, case(dataset), told)
    assert found.passed and states(found) == {"card": True, "outputs": True, "metric": True}
    assert (found.images, found.agreement) == (20, 1.0)
    assert found.metrics["reference"] == found.metrics["exported"]
    assert found.metrics["reference"]["accuracy"] == pytest.approx(0.95)
    assert all(row["value"] in (0.0, None) for row in found.differences.values())
    assert [(row["size"], row["batch"], row["images"], row["largest"]) for row in found.outputs] == [
        ([5, 7], 8, 20, 0.0),
        ([5, 7], 1, FEW, 0.0),
        ([9, 4], 8, FEW, 0.0),
    ]
    assert session.shapes == [(8, 3, 5, 7)] * 2 + [(4, 3, 5, 7)] + [(1, 3, 5, 7)] * FEW + [(8, 3, 9, 4)] * 2
    assert told.finished == 1 and told.done == 20 + 2 * FEW == told.total
    facts = found.to_dict()
    assert facts["verdict"] == "pass"
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@pytest.mark.parametrize("relative", [0.0, 0.5])
@pytest.mark.parametrize(("factor", "passes"), [(0.9, True), (1.1, False)])
def test_float32_may_differ_by_atol_and_rtol_of_the_value(dataset: Dataset, relative: float, factor: float, passes: bool) -> None:
    """An answer 0 may be off by ATOL, one of 0.5 by that and RTOL of it."""

    def original(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        answers = answers.copy()
        answers[:, 0] = relative
        answers[:, 1:] *= 0.4
        return answers

    def off(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        answers = original(answers, size)
        answers[-1, 0] += factor * (ATOL + RTOL * relative)
        return answers

    found = prove(Brightest(change=off), case(dataset, Brightest(change=original)), Silent())
    assert states(found)["outputs"] is passes
    assert found.passed is passes
    assert found.to_dict()["verdict"] == ("pass" if passes else "fail")


@pytest.mark.parametrize("where", SIZES)
def test_a_difference_at_one_size_alone_is_found(dataset: Dataset, where: tuple[int, int]) -> None:
    def change(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        return answers * np.float32(0.99) if size == where else answers

    found = prove(Brightest(change=change), case(dataset), Silent())
    assert states(found) == {"card": True, "outputs": False, "metric": True}
    assert f"at {where[0]}x{where[1]}" in message(found, "outputs")


@pytest.mark.parametrize("only", [1, 4])
def test_a_difference_at_one_batch_alone_is_found(dataset: Dataset, only: int) -> None:
    def change(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        return answers * np.float32(0.99) if len(answers) == only and size == (5, 7) else answers

    found = prove(Brightest(change=change), case(dataset), Silent())
    assert states(found)["outputs"] is False
    assert f"batch {only})" in message(found, "outputs")


def test_a_difference_in_one_image_of_all_is_found(dataset: Dataset) -> None:
    seen = 0

    def change(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        nonlocal seen
        answers = answers.copy()
        if seen <= 19 < seen + len(answers):
            answers[19 - seen] = answers[19 - seen, [1, 2, 0]]
        seen += len(answers)
        return answers

    found = prove(Brightest(change=change), case(dataset), Silent())
    assert states(found)["outputs"] is False and found.agreement == pytest.approx(0.95)


def permuted(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return answers[:, [1, 2, 0]]


def test_lost_points_are_held_against_the_tolerance(dataset: Dataset) -> None:
    """One of twenty images lost is 5 points."""

    def one_wrong(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        answers = answers.copy()
        if len(answers) == 20:
            answers[0] = answers[0, [1, 2, 0]]
        return answers

    for tolerance, passes in ((0.0, False), (4.99, False), (5.0, True), (5.01, True)):
        found = prove(Brightest(change=one_wrong, batch=20), case(dataset, exact=False, tolerance=tolerance), Silent())
        assert states(found) == {"card": True, "outputs": True, "metric": passes}, tolerance
        assert found.differences["accuracy"]["value"] == pytest.approx(-0.05)
    assert "5.00 points lost; at most 5.01 may be lost" in message(found, "metric")


def test_a_better_metric_is_no_loss(dataset: Dataset) -> None:
    found = prove(Brightest(), case(dataset, Brightest(change=permuted), exact=False, tolerance=0), Silent())
    assert found.passed and "points gained" in message(found, "metric")
    assert found.differences["accuracy"]["value"] > 0


def test_a_metric_where_less_is_better(dataset: Dataset) -> None:
    class Loss(ClassificationMetric):
        primary, higher_is_better = "nll", False

    for original, exported, passes in ((None, permuted, False), (permuted, None, True)):
        asked = replace(case(dataset, Brightest(change=original), exact=False), metric=lambda card: Loss(card.classes))
        assert states(prove(Brightest(change=exported), asked, Silent()))["metric"] is passes


CARDS: dict[str, Callable[[Card], Card]] = {
    "task": lambda card: replace(card, task="segment"),
    "classes": lambda card: replace(card, classes=("green", "blue", "red")),
    "classes renamed": lambda card: replace(card, classes=("blue", "green", "rot")),
    "classes more": lambda card: replace(card, classes=(*CLASSES, "violet")),
    "classes fewer": lambda card: replace(card, classes=CLASSES[:2]),
    "classes other": lambda card: replace(card, classes=("a", "b", "c")),
    "input size": lambda card: replace(card, input=replace(card.input, size=(7, 5))),
    "input resize": lambda card: replace(card, input=replace(card.input, resize="stretch")),
    "input mean": lambda card: replace(card, input=replace(card.input, mean=(0.1,) * 3, std=(1.0,) * 3)),
    "input channels": lambda card: replace(card, input=replace(card.input, channels=1)),
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("what", CARDS)
def test_another_card_fails_whatever_the_answers_are(dataset: Dataset, what: str, exact: bool) -> None:
    asked = case(dataset, exact=exact, tolerance=100.0)
    found = prove(Brightest(CARDS[what](CARD)), asked, Silent())
    assert not found.passed and states(found)["card"] is False
    assert what.split()[0] in message(found, "card")
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_exported_side_is_prepared_by_its_own_card(dataset: Dataset) -> None:
    """As `predict` will do with the file: what a wrong size costs is measured, not only said."""
    session = Brightest(CARDS["input size"](CARD), batch=4)
    prove(session, case(dataset), Silent())
    assert session.shapes == [(4, 3, 7, 5)] * 5 + [(1, 3, 7, 5)] * FEW + [(4, 3, 9, 4)] * 4


def test_what_does_not_matter_to_the_answers_may_differ(dataset: Dataset) -> None:
    other = replace(CARD, version="99", metrics={"accuracy": 0.1}, architecture={"name": "onnx"}, licenses=({"license": "MIT"},))
    assert prove(Brightest(other), case(dataset), Silent()).passed


def refuse(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    raise UserError("the runtime fails", where="model.onnx")


def refuse_elsewhere(answers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return answers if size == (5, 7) else refuse(answers, size)


BROKEN: dict[str, Change] = {
    "not a number": lambda answers, size: answers * np.nan,
    "infinite": lambda answers, size: answers + np.inf,
    "one not a number": lambda answers, size: np.where(np.arange(answers.size).reshape(answers.shape) == 0, np.nan, answers),
    "not a number elsewhere": lambda answers, size: answers if size == (5, 7) else answers * np.nan,
    "one class fewer": lambda answers, size: answers[:, :2],
    "one axis more": lambda answers, size: answers[:, :, None],
    "transposed": lambda answers, size: answers.T,
    "transposed elsewhere": lambda answers, size: answers if size == (5, 7) else answers.T,
    "one image for all": lambda answers, size: answers[:1],
    "a number": lambda answers, size: answers.max(),
    "logits": lambda answers, size: np.log(answers),
    "refused": refuse,
    "refused elsewhere": refuse_elsewhere,
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("how", BROKEN)
def test_broken_outputs_are_a_check_that_fails(dataset: Dataset, how: str, exact: bool) -> None:
    told = Told()
    found = prove(Brightest(change=BROKEN[how], batch=8), case(dataset, exact=exact, tolerance=100.0), told)
    assert not found.passed, "even where any number of points may be lost"
    assert told.finished == 1
    facts = found.to_dict()
    assert set(facts["metrics"]) == {"reference", "exported"} and facts["verdict"] == "fail"
    json.dumps(facts, allow_nan=False)


def test_the_originals_figures_are_there_also_where_the_export_fails_to_run(dataset: Dataset) -> None:
    found = prove(Brightest(change=refuse), case(dataset), Silent())
    assert found.metrics["reference"].get("accuracy") == pytest.approx(0.95)


def test_fewer_answers_than_images_at_another_size_fail(dataset: Dataset) -> None:
    kept = reference.answer(Brightest(), dataset, np.arange(6), SIZES, Silent())
    asked = Case(kept, dataset, np.arange(6), True, 0.5, lambda card: ClassificationMetric(card.classes))
    found = prove(Brightest(change=lambda answers, size: answers if size == (5, 7) else answers[:3], batch=8), asked, Silent())
    assert not found.passed


def test_a_reference_that_is_not_finite_at_another_size_proves_nothing(dataset: Dataset) -> None:
    asked = case(dataset, Brightest(change=BROKEN["not a number elsewhere"]))
    assert not prove(Brightest(), asked, Silent()).passed


def test_another_name_of_the_output_fails(dataset: Dataset) -> None:
    found = prove(Brightest(name="scores"), case(dataset), Silent())
    assert not found.passed


@pytest.mark.parametrize("n", [1, 2])
def test_one_image_and_two(dataset: Dataset, n: int) -> None:
    kept = reference.answer(Brightest(), dataset, np.arange(n), SIZES, Silent())
    asked = Case(kept, dataset, np.arange(n), True, 0.5, lambda card: ClassificationMetric(card.classes))
    found = prove(Brightest(), asked, Silent())
    assert found.passed and found.images == n
    assert (found.differences["accuracy"]["low"] is None) == (n == 1)


def test_the_interval_depends_on_the_seed_only(dataset: Dataset) -> None:
    def differences(seed: int) -> Any:
        session = Brightest(change=permuted)
        return prove(session, case(dataset, exact=False, seed=seed), Silent()).differences

    assert differences(0) == differences(0) != differences(1)


def test_an_image_lost_meanwhile_is_a_check_that_fails(dataset: Dataset, tmp_path: Path) -> None:
    asked = case(dataset)
    gone = replace(dataset, annotations=replace(dataset.annotations, tree=FolderTree(tmp_path)))
    found = prove(Brightest(), replace(asked, dataset=gone), Silent())
    assert not found.passed and ".png" in message(found, "run")


def test_tolerances_are_those_of_the_docs() -> None:
    assert (proof.ATOL, proof.RTOL, FEW) == (1e-4, 1e-3, 16)
