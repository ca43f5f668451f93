"""Numbers and findings in words."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import binomtest

from saccade.report import tables, words


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.98888, "98.9"), (1.0, "100"), (0.0, "0"), (0.9996, "99.96"), (0.99999, "99.999"), (0.0002, "0.02"), (0.5, "50.0")],
)
def test_percent_never_rounds_to_a_claim(share: float, text: str) -> None:
    assert words.percent(share) == f"{text}\u202f%"


def test_names_are_cut_in_the_middle_after_they_are_made_visible() -> None:
    assert words.short("a" * 50 + "end.png", 20) == "a" * 9 + "…" + "aaaend.png"
    assert words.short("\u202e\udcff\n") == "\\u202e\\udcff\\u000a"
    assert words.visible("👩\u200d🔬 é 中") == "👩\u200d🔬 é 中"
    assert all(len(words.short("x" * 99, n)) == n for n in (5, 20, 40))


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.5", True])
def test_what_is_no_number_is_a_dash(value: Any) -> None:
    assert words.figure("accuracy", value) == "—"


def test_verdicts() -> None:
    first = {"name": "accuracy", "value": 0.75, "low": None, "high": None}
    assert words.verdict("val", 1, [first]) == "On 1 validation image the model is right 75.0\u202f% of the time."
    assert words.verdict("2024", 7, [first]).startswith("On 7 images of the split 2024 ")
    unknown = {"name": "fid_clip", "value": 12.3456, "low": 11, "high": 13}
    assert "reaches FID (clip features) 12.35 (95\u202f% interval 11–13)" in words.verdict("test", 9, [unknown])
    unmeasured = "This model has not been measured on any image yet."
    assert words.verdict("test", 9, [{"name": "accuracy", "value": None}]) == words.verdict("", 0, []) == unmeasured


GAN = [
    {"name": "fid_classifier", "value": 12.3, "low": 11.8, "high": 12.9},
    {"name": "precision_classifier", "value": 0.912},
    {"name": "recall_classifier", "value": 0.6},
    {"name": "coverage_classifier", "value": 0.88},
]
VAE = [{"name": "bits_per_dim", "value": 1.0213}, {"name": "psnr", "value": 24.13}, {"name": "fid_clusters", "value": 31.2}]


@pytest.mark.parametrize(("headline", "says"), [
    (GAN, "The made images are at FID 12.3 (classifier features; 95 % interval 11.8–12.9) from the 6,000 validation images; "
          "91.2 % of them look real (precision) and they cover 88.0 % of the real ones (coverage)."),
    (GAN[:1], "The made images are at FID 12.3 (classifier features; 95 % interval 11.8–12.9) from the 6,000 validation images."),
    (GAN[1:3], "91.2 % of the made images look real (precision) and they cover 60.0 % of the real ones (recall)."),
    (GAN[3:], "The made images cover 88.0 % of the real ones (coverage)."),
    (VAE, "It stores the 6,000 validation images in 1.021 bits per value (lower is better), and its reconstructions match them at 24.13 dB "
          "PSNR (higher is better). The made images are at FID 31.2 (cluster features) from the real ones."),
    (VAE[1:2], "Its reconstructions match the 6,000 validation images at 24.13 dB PSNR (higher is better)."),
    ([{"name": "fid_x", "value": None}, {"name": "kid_x", "value": 0.5}],
     "The made images are at KID 0.5 (x features) from the 6,000 validation images."),
    ([{"name": "ssim", "value": 0.9}], "On 6,000 validation images the model reaches SSIM 0.9."),
    ([{"name": "fid_x", "value": None}], "This model has not been measured on any image yet."),
    ([], "This model has not been measured on any image yet."),
])  # fmt: skip
def test_verdicts_on_made_images_say_what_is_known(headline: list[dict[str, Any]], says: str) -> None:
    assert words.verdict("val", 6000, headline, "generate").replace("\u202f", " ") == says


@pytest.mark.parametrize(("name", "label", "percent", "higher"), [
    ("fid_classifier", "FID (classifier features)", False, False), ("kid_clusters", "KID (cluster features)", False, False),
    ("precision_my_net", "Precision (my_net features)", True, True), ("recall_x", "Recall (x features)", True, True),
    ("density_x", "Density (x features)", False, True), ("coverage_x", "Coverage (x features)", True, True),
    ("spread_x", "Spread (x features)", False, True), ("told_apart", "Told apart", True, False),
    ("bits_per_dim", "Bits per dimension", False, False), ("bits_per_dim_weighted", "Bits per dimension, closer", False, False),
    ("elbo", "ELBO", False, True), ("psnr", "PSNR", False, True), ("ssim", "SSIM", False, True),
    ("precision", "Precision", True, True), ("fid", "Fid", False, True), ("fid_", "Fid ", False, True),
])  # fmt: skip
def test_measures_of_made_images(name: str, label: str, percent: bool, higher: bool) -> None:
    found = words.measure(name)
    assert (found.label, found.percent, found.higher) == (label, percent, higher)
    assert found.meaning or (name.startswith("fid") and label.startswith("Fid"))


def test_names_of_features_are_made_visible() -> None:
    assert words.measure("fid_\u202egnp").label == "FID (\\u202egnp features)"


@pytest.mark.parametrize(("name", "value", "text", "low", "high", "range_"), [
    ("psnr", 24.128, "24.13 dB", 24.0, 24.5, "24–24.5 dB"), ("elbo", -12345.6, "−12,346", -12400.0, -12300.0, "−12,400 to −12,300"),
    ("kid_x", -0.0012, "−0.0012", -0.01, 0.01, "−0.01 to 0.01"), ("bits_per_dim", 1.0213, "1.021", 1.0, 1.1, "1–1.1"),
    ("coverage_x", 0.88, "88.0 %", 0.8, 0.9, "80.0–90.0 %"),
])  # fmt: skip
def test_figures_have_their_unit_and_a_minus(name: str, value: float, text: str, low: float, high: float, range_: str) -> None:
    assert words.figure(name, value).replace("\u202f", " ") == text
    assert words.interval(name, low, high).replace("\u202f", " ") == range_


def test_abbreviations_stay_large_within_a_sentence() -> None:
    best = words.best_words("fid_classifier", (3.0, 12.34), 4.0, "epoch", rising=False)
    assert best.startswith("Best FID (classifier features) on the validation images: 12.34 at epoch 3 of 4.")
    assert words.best_words("f1_macro", (3.0, 0.5), 4.0, "epoch", rising=True).startswith("Best macro f1 on")


@pytest.mark.parametrize(("confidence", "accuracy", "n", "says"), [
    (0.95, 0.70, 500, "too sure"), (0.60, 0.90, 500, "too modest"), (0.90, 0.905, 500, "at its word"), (0.95, 0.90, 20, "at its word"),
])  # fmt: skip
def test_calibration_in_words_minds_the_noise(confidence: float, accuracy: float, n: int, says: str) -> None:
    bins = [{"count": n, "confidence": confidence, "accuracy": accuracy}, {"count": 0, "confidence": None, "accuracy": None}]
    assert says in words.calibration(bins)
    assert words.calibration(bins[1:]) == ""


def test_bound_for_no_mistakes_is_the_exact_binomial_one() -> None:
    bound = binomtest(0, 360).proportion_ci(0.90, method="exact").high  # two-sided 90 % = one-sided 95 %
    assert words.percent(bound) in words.no_mistakes(360)


def test_bars_of_shares_have_one_scale_and_stay_inside() -> None:
    made = tables.cards([
        {"name": "accuracy", "value": 0.98, "low": 0.92, "high": 1.0}, {"name": "f1_macro", "value": 0.85, "low": 0.81, "high": 0.9},
        {"name": "ece", "value": 0.03, "low": 0.01, "high": 0.15}, {"name": "fid_x", "value": 3.0},
    ])  # fmt: skip
    assert made[0].ends == made[1].ends == ("80\u202f%", "100\u202f%") and made[2].ends == ("0\u202f%", "20\u202f%")
    assert made[0].bar == {"left": 60.0, "width": 40.0, "dot": 90.0} and made[3].bar is None
    assert all(0 <= c.bar["left"] <= c.bar["dot"] <= c.bar["left"] + c.bar["width"] <= 100 for c in made[:3] if c.bar)


def test_advice_names_classes_that_are_few_and_weak() -> None:
    per_class = [{"class": "rare", "f1": 0.5}, {"class": "common", "f1": 0.6}, {"class": "good", "f1": 0.99}]
    found = tables.confusion([[5, 4, 0], [0, 50, 0], [0, 0, 90]], ["rare", "common", "good"])
    lines = tables.advice(found, tables.class_table(per_class), per_class, {"rare": 10, "common": 100, "good": 100}, "val")
    assert "“rare” (10)." in lines[0] and "common" not in lines[0]
    assert "“rare” that were taken for “common” (4 of 9)" in lines[1] and "test/" in lines[2]


def test_class_table_keeps_undefined_figures_apart_from_zero() -> None:
    made = tables.class_table(
        [{"class": "a", "images": 0, "precision": None, "f1": None}, {"class": "b", "images": 1, "precision": 0.0, "f1": 0.0}]
    )
    assert [cell["text"] for cell in made.rows[0]["cells"]] == ["0", "—", "—"]
    assert [cell["text"] for cell in made.rows[1]["cells"]] == ["1", "0\u202f%", "0\u202f%"]
    assert [row["weak"] for row in made.rows] == [False, True]
