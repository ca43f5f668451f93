"""The classifier's metric: equal to scikit-learn and torchmetrics, weighted and not, down to no image at all."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn import metrics as reference

from saccade.core.finish import classifications
from saccade.evaluation.intervals import bootstrap, resample
from saccade.tasks.classification.metrics import BINS, ClassificationMetric

NAMES = ["accuracy", "top5_accuracy", "f1_macro", "ece", "nll"]


def names(k: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(k))


def feed(probabilities: np.ndarray, truth: np.ndarray, *, batch: int = 64) -> ClassificationMetric:
    n, k = probabilities.shape
    metric = ClassificationMetric(names(k))
    for at in range(0, n, batch):
        rows = probabilities[at : at + batch]
        metric.update(classifications(rows, names(k), [(17, 11)] * len(rows), [str(i) for i in range(len(rows))]), truth[at : at + batch])
    return metric


def data(n: int, k: int, seed: int = 0, sharp: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * sharp
    truth = np.where(generator.random(n) < 0.5, logits.argmax(1) if k else 0, generator.integers(0, k, n))
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return (exponents / exponents.sum(1, keepdims=True)).astype(np.float32), truth


def absent(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    probabilities, truth = data(n, k)
    probabilities[:, k - 1] = 0  # never answered, never true
    truth[truth == k - 1] = 0
    return probabilities / probabilities.sum(1, keepdims=True), truth


def one_answer(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    _, truth = data(n, k)
    rest = np.arange(1, k)  # no ties: the references break them otherwise
    return np.tile(np.append(0.6, 0.4 * rest / rest.sum()).astype(np.float32), (n, 1)), truth


CASES = {
    "random": data(500, 10),
    "many classes": data(300, 40, 1),
    "two classes": data(200, 2, 2),
    "five classes": data(200, 5, 3),
    "six classes": data(200, 6, 4),
    "flat": data(150, 7, 5, sharp=0.1),
    "class absent": absent(200, 8),
    "one class answered": one_answer(120, 6),
    "one truth": (data(90, 6, 6)[0], np.full(90, 2)),
    "single right": (np.array([[0.7, 0.2, 0.1]], np.float32), np.array([0])),
    "single wrong": (np.array([[0.7, 0.2, 0.1]], np.float32), np.array([2])),
}


def by_sklearn(p: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    k, label = p.shape[1], p.argmax(1)
    return {
        "accuracy": reference.accuracy_score(truth, label),
        "top5_accuracy": reference.top_k_accuracy_score(truth, p, k=5, labels=range(k)) if k > 5 else None,
        "f1_macro": reference.f1_score(truth, label, average="macro"),
        "nll": reference.log_loss(truth, p, labels=range(k)),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_equal_to_scikit_learn(case: str):
    probabilities, truth = CASES[case]
    figures = feed(probabilities, truth).compute()
    assert list(figures) == NAMES
    for name, value in by_sklearn(probabilities, truth).items():
        assert figures[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name


@pytest.mark.parametrize("case", CASES)
def test_equal_to_torchmetrics(case: str):
    import torch
    from torchmetrics.functional import classification as peer

    probabilities, truth = CASES[case]
    k, figures = probabilities.shape[1], feed(probabilities, truth).compute()
    p, t = torch.from_numpy(probabilities).double(), torch.from_numpy(truth)
    assert figures["accuracy"] == pytest.approx(float(peer.multiclass_accuracy(p, t, k, average="micro")), abs=1e-6)
    assert figures["f1_macro"] == pytest.approx(float(peer.multiclass_f1_score(p, t, k, average="macro")), abs=1e-6)
    assert figures["ece"] == pytest.approx(float(peer.multiclass_calibration_error(p, t, k, n_bins=BINS, norm="l1")), abs=1e-6)
    if k > 5:
        assert figures["top5_accuracy"] == pytest.approx(float(peer.multiclass_accuracy(p, t, k, average="micro", top_k=5)), abs=1e-6)
    assert feed(probabilities, truth).details()["confusion"] == peer.multiclass_confusion_matrix(p, t, k).tolist()


@pytest.mark.parametrize("case", CASES)
def test_weights_are_repetitions(case: str):
    probabilities, truth = CASES[case]
    weights = np.random.default_rng(9).integers(0, 4, len(truth))
    weights[0] = 3
    repeated = feed(probabilities.repeat(weights, axis=0), truth.repeat(weights)).compute()
    for name, value in feed(probabilities, truth).compute(weights).items():
        assert value == (None if repeated[name] is None else pytest.approx(repeated[name], abs=1e-9)), name
    label = probabilities.argmax(1)
    assert repeated["accuracy"] == pytest.approx(reference.accuracy_score(truth, label, sample_weight=weights))


@pytest.mark.parametrize("case", CASES)
def test_per_class_equals_scikit_learn(case: str):
    probabilities, truth = CASES[case]
    k, label = probabilities.shape[1], probabilities.argmax(1)
    precision, recall, f1, images = reference.precision_recall_fscore_support(truth, label, labels=range(k), zero_division=np.nan)
    rows = feed(probabilities, truth).per_class()
    assert [row["class"] for row in rows] == list(names(k))
    assert [row["images"] for row in rows] == images.tolist()
    for key, wanted in (("precision", precision), ("recall", recall), ("f1", f1)):
        got = np.array([np.nan if row[key] is None else row[key] for row in rows])
        np.testing.assert_allclose(got, wanted, atol=1e-6, err_msg=key)


def test_undefined_is_none_and_out_of_the_mean():
    never = feed(np.array([[1, 0, 0], [1, 0, 0]], np.float32), np.array([0, 1]))
    first, second, third = never.per_class()
    assert (first["precision"], first["recall"], first["f1"]) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (second["precision"], second["recall"], second["f1"]) == (None, 0.0, 0.0)
    assert (third["precision"], third["recall"], third["f1"]) == (None, None, None)
    assert never.compute()["f1_macro"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("fed", [False, True])
def test_no_image(fed: bool):
    metric = ClassificationMetric(names(7))
    if fed:
        metric.update([], [])
    assert metric.compute() == metric.compute(np.zeros(0, np.int64)) == dict.fromkeys(NAMES)
    assert metric.per_class()[6] == {"class": "class 6", "images": 0, "precision": None, "recall": None, "f1": None}
    assert np.array(metric.details()["confusion"]).shape == (7, 7)
    assert metric.details()["reliability"][0] == {"low": 0, "high": 1 / 15, "count": 0, "accuracy": None, "confidence": None}


def test_all_weights_zero():
    assert feed(*CASES["random"]).compute(np.zeros(500, np.int64)) == dict.fromkeys(NAMES)


def test_bins_are_closed_on_the_right():
    # Guo et al.: ((m-1)/15, m/15]. torchmetrics closes the left, and gives 1.0 a bin of its own.
    probabilities = np.array([[0.6, 0.4], [1.0, 0.0], [0.95, 0.05]], np.float32)
    metric = feed(probabilities, np.array([0, 0, 1]))
    counts = {i: bin_["count"] for i, bin_ in enumerate(metric.details()["reliability"]) if bin_["count"]}
    assert counts == {8: 1, 14: 2}  # 0.6 = 9/15 belongs to the ninth
    assert metric.compute()["ece"] == pytest.approx((abs(1 - 0.6) + abs(1 - 1.95)) / 3)


def test_log_loss_is_clipped():
    assert feed(np.array([[1.0, 0.0]], np.float32), np.array([1])).compute()["nll"] == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_labels_without_scores():
    probabilities, truth = CASES["random"]
    full, bare = feed(probabilities, truth), ClassificationMetric(names(10))
    bare.update_labels(probabilities.argmax(1).tolist(), truth.tolist())
    for name in ("accuracy", "f1_macro"):
        assert bare.compute()[name] == full.compute()[name]
    assert [bare.compute()[name] for name in ("top5_accuracy", "ece", "nll")] == [None] * 3
    assert bare.per_class() == full.per_class()
    assert bare.details() == full.details() | {"reliability": []}


def test_batches_do_not_matter():
    probabilities, truth = CASES["random"]
    assert feed(probabilities, truth, batch=500).compute() == feed(probabilities, truth, batch=7).compute()


def test_compute_between_updates():
    probabilities, truth = CASES["random"]
    metric = feed(probabilities[:100], truth[:100])
    assert metric.compute() == feed(probabilities[:100], truth[:100]).compute()
    metric.update(classifications(probabilities[100:], names(10), [(1, 1)] * 400, [""] * 400), truth[100:])
    assert metric.compute() == feed(probabilities, truth).compute()


@pytest.mark.parametrize("truths", [[3], [-1], [0.5], [[0]], [0, 1], ["0"]])
def test_truths_that_do_not_fit(truths: list):
    found = classifications([[0.5, 0.3, 0.2]], names(3), [(1, 1)], ["a"])
    with pytest.raises(ValueError, match="truths must be"):
        ClassificationMetric(names(3)).update(found, truths)


def test_results_of_other_classes():
    with pytest.raises(ValueError, match="must have 4 classes, got 3"):
        ClassificationMetric(names(4)).update(classifications([[0.5, 0.3, 0.2]], names(3), [(1, 1)], ["a"]), [0])


@pytest.mark.parametrize("weights", [np.ones(499, np.int64), np.ones(500), np.full(500, -1)])
def test_weights_that_do_not_fit(weights: np.ndarray):
    with pytest.raises(ValueError, match="weights must be 500 integers"):
        feed(*CASES["random"]).compute(weights)


def test_a_thousand_resamples_of_ten_thousand_images_take_under_a_second():
    metric = feed(*data(10_000, 10), batch=1000)
    metric.compute()
    began = time.process_time()  # of this process alone: other work on the machine does not count
    intervals = bootstrap(metric, 10_000)
    assert time.process_time() - began < 1.0
    low, high = intervals["accuracy"]
    error = np.sqrt(metric.compute()["accuracy"] * (1 - metric.compute()["accuracy"]) / 10_000)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.15)


def test_resample_counts_its_images():
    assert resample(17, 0, 3).sum() == 17
    assert resample(17, 0, 3).tolist() == resample(17, 0, 3).tolist() != resample(17, 0, 4).tolist()
    assert resample(0, 0, 0).shape == (0,)
