"""Lines, marks and intervals behind the plots; thumbnails."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from saccade.report import pictures, plots


def decoded(thumb: pictures.Thumb) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(thumb.uri.split(",")[1])))


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (1, 1), (37, 40), (500, 1000)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    low, high = plots.wilson(np.array([k / n]), np.array([float(n)]))
    want = binomtest(k, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [want.low, want.high], atol=2e-4)


def test_curves_leave_out_what_is_not_finite_and_sort() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 3, "loss": 0.1}, {"step": 1, "loss": 0.5}, {"step": 2, "loss": None}, {"step": 4, "loss": float("nan")},
        {"step": 4, "split": "val", "metrics": {"accuracy": None, "loss": 1.0}},
    ]  # fmt: skip
    made = plots.curves(rows, [], "accuracy")
    assert made.unit == "step" and made.losses["loss"].x.tolist() == [1, 3] and made.losses["loss"].y.tolist() == [0.5, 0.1]
    exits = plots.curves([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.4, "last": 0.4, "exit_1": 2.0}], [], "accuracy")
    assert exits.losses["loss"].y.tolist() == [0.5, 0.4] and list(exits.losses) == ["loss"]
    assert made.best() is None and made.validation_loss.y.tolist() == [1.0]


def test_marks_stand_at_their_epoch_and_the_best_is_the_first() -> None:
    rows = [
        {"step": s, "epoch": s / 50, "split": "val", "metrics": {"accuracy": a}} for s, a in ((50, 0.5), (100, 0.9), (150, 0.9), (200, 0.7))
    ]
    made = plots.curves(rows, [{"step": 125, "text": "x"}, {"step": 999, "text": "y"}], "accuracy")
    again = plots.curves(rows, [{"step": 100, "anew": True}, {"step": 150, "anew": False}], "accuracy")
    assert again.best() == (3.0, 0.9) and plots.curves(rows, [{"step": 300, "anew": True}], "accuracy").best() == (2.0, 0.9)
    assert plots._together((1.0, 2.5, 2.5, 2.5, 4.0)) == {1.0: "1", 2.5: "2–4", 4.0: "5"}
    assert made.marks == (2.5, 4.0) and made.best() == (2.0, 0.9) and not made.rising()


def test_another_primary_metric_and_lower_is_better() -> None:
    rows = [{"step": s, "split": "val", "metrics": {"ece": v, "loss": 1.0}} for s, v in ((1, 0.3), (2, 0.1), (3, 0.2))]
    made = plots.curves(rows, [], "accuracy")
    assert made.score_name == "ece" and made.best() == (2.0, 0.1)


@pytest.mark.parametrize("name", ["fid_classifier", "bits_per_dim"])
def test_figures_of_made_images_are_better_when_lower(name: str) -> None:
    rows = [{"step": s, "split": "val", "metrics": {name: v, "told_apart": 0.9}} for s, v in ((1, 30.0), (2, 10.0), (3, 20.0))]
    made = plots.curves(rows, [], name)
    assert made.score_name == name and made.best() == (2.0, 10.0) and not made.rising()
    assert plots.curves(rows[:2], [], name).rising()
    shown = plots.score_plot(made)
    assert shown is not None and shown.alt.endswith("the best is 10 at 2")


def test_each_loss_has_its_line_and_colour() -> None:
    rows: list[dict[str, Any]] = [
        {"step": s, "judge/loss": 0.5, "judge/real": 9.0, "generator/loss": -s, "unloss": 1.0, "empty/loss": None} for s in (1, 2)
    ]
    made = plots.curves(rows, [], "fid_classifier")
    assert list(made.losses) == ["judge/loss", "generator/loss"]
    shown = plots.loss_plot(made)
    assert shown is not None and shown.alt == "Losses by step: judge from 0.5 to 0.5, generator from -1 to -2"
    drawing = base64.b64decode(shown.light.split(",")[1]).decode()
    assert ">judge<" in drawing and ">generator<" in drawing and plots.LIGHT.first in drawing and plots.LIGHT.second in drawing


def test_hostile_and_many_losses_are_numbered_and_cut() -> None:
    names = ["$x^2_{/loss", "<b>/loss", "_hidden/loss", "loss", *(f"phase {i}/loss" for i in range(40))]
    made = plots.curves([{"step": s, **dict.fromkeys(names, 0.5)} for s in (1, 2)], [], "accuracy")
    assert len(made.losses) == plots.MOST_LOSSES
    shown = plots.loss_plot(made)
    assert shown is not None and "loss 1 from" in shown.alt and "loss 2 from" in shown.alt and "<b>" not in shown.alt
    looks = [tuple(plots.DARK.line(i).values()) for i in range(plots.MOST_LOSSES)]
    assert len(set(looks)) == len(looks)


def test_a_single_loss_of_a_phase_is_that_of_training() -> None:
    shown = plots.loss_plot(plots.curves([{"step": s, "autoencoder/loss": 1.0 / s} for s in (1, 2)], [], "accuracy"))
    assert shown is not None and shown.alt == "Loss by step, from 1 to 0.5"


def test_thinning_keeps_mean_and_extremes() -> None:
    y = np.random.Generator(np.random.Philox(1)).normal(size=10_007)
    mean, low, high = plots.thin(plots.Line(np.arange(10_007.0), y))
    assert len(mean) == plots.POINTS and low.min() == y.min() and high.max() == y.max()
    assert abs(mean.y.mean() - y.mean()) < 1e-3 and (np.diff(mean.x) > 0).all()


@pytest.mark.parametrize("n", [1, 2, 39, 40, 240])
def test_smoothing_keeps_straight_lines(n: int) -> None:
    np.testing.assert_allclose(plots.smooth(np.arange(float(n))), np.arange(float(n)), atol=1e-9)


@pytest.mark.parametrize("losses", [[1.0, 1.0], [1e-9, 1e3], [-1.0, 2.0], [0.0, 0.0], [1e30, 1.0]])
def test_odd_losses_are_drawn(losses: list[float]) -> None:
    made = plots.curves([{"step": i, "loss": loss} for i, loss in enumerate(losses)], [], "accuracy")
    assert plots.loss_plot(made) is not None


def test_tiny_pictures_are_kept_exactly() -> None:
    pixels = np.random.Generator(np.random.Philox(2)).integers(0, 256, (17, 11, 3)).astype(np.uint8)
    thumb = pictures.thumbnail(pixels)
    assert thumb.tiny and (thumb.width, thumb.height) == (11, 17)
    np.testing.assert_array_equal(np.asarray(decoded(thumb)), pixels)


@pytest.mark.parametrize(("shape", "size"), [
    ((480, 640, 3), (224, 168)), ((640, 480, 1), (168, 224)), ((100, 90), (90, 100)), ((1, 5000, 3), (224, 1)), ((3000, 2, 1), (1, 224)),
])  # fmt: skip
def test_thumbnails_keep_their_shape(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    thumb = pictures.thumbnail(np.full(shape, 200, np.uint8))
    assert decoded(thumb).size == (thumb.width, thumb.height) == size
    assert abs(int(np.asarray(decoded(thumb)).mean()) - 200) <= 2


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_what_is_no_picture_is_a_defect(pixels: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        pictures.thumbnail(pixels)


@pytest.mark.parametrize(("shape", "size", "scale", "strip"), [
    ((17, 11, 3), (11, 17), 8, False), ((17, 11), (11, 17), 8, False), ((17, 11, 1), (11, 17), 8, False),
    ((32, 320, 3), (320, 32), 3, True), ((224, 224, 4), (224, 224), 2, False), ((700, 700, 3), (700, 700), 1, False),
    ((20, 1600, 3), (1600, 20), 1, True), ((40, 5000, 4), (1600, 12), 1, True), ((1, 9000, 3), (1600, 1), 1, True),
    ((6400, 100, 1), (50, 3200), 1, False),
])  # fmt: skip
def test_sheets_keep_their_pixels_unless_they_are_too_large(shape: tuple[int, ...], size: tuple[int, int], scale: int, strip: bool) -> None:
    pixels = np.random.Generator(np.random.Philox(3)).integers(0, 256, shape).astype(np.uint8)
    made = pictures.sheet(pixels)
    image = Image.open(io.BytesIO(base64.b64decode(made.uri.removeprefix("data:image/png;base64,"))))
    assert image.format == "PNG" and image.size == size
    assert (made.width, made.height, made.scale, made.strip) == (size[0] * scale, size[1] * scale, scale, strip)
    assert made.clear == (pixels.ndim == 3 and pixels.shape[2] == 4)
    if size == shape[1::-1]:
        np.testing.assert_array_equal(np.asarray(image), pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def test_reduced_sheets_do_not_bleed_colours_of_what_cannot_be_seen() -> None:
    pixels = np.zeros((8, 4000, 4), np.uint8)
    pixels[:, ::2] = (0, 255, 0, 0)  # green that nobody sees
    pixels[:, 1::2] = (255, 0, 0, 255)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures.sheet(pixels).uri.split(",")[1]))))
    assert image[..., 1].max() <= 2 and image[..., 0].min() >= 250


def test_sheets_that_hide_nothing_need_no_alpha() -> None:
    made = pictures.sheet(np.full((9, 9, 4), 255, np.uint8))
    assert not made.clear
    assert Image.open(io.BytesIO(base64.b64decode(made.uri.split(",")[1]))).mode == "RGB"


@pytest.mark.parametrize("shape", [(4, 4, 2), (4, 4, 5), (0, 4, 3), (4,), (1, 4, 4, 3)])
def test_what_is_no_sheet_is_a_defect(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        pictures.sheet(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("k", [1, 40, 640, 1500])
def test_compact_matrix_shows_the_diagonal_blue_and_mistakes_orange(k: int) -> None:
    counts = np.eye(k, dtype=np.int64) * 9000
    counts[k - 1, 0] += 1  # rare, yet it must be seen
    image = np.asarray(decoded(pictures.confusion_picture(counts)))
    assert image.shape[0] == image.shape[1] <= pictures.MATRIX_SIDE
    assert tuple(image[0, 0, :3]) == pictures.RIGHT and image[0, 0, 3] > 200
    if k > 1:
        assert tuple(image[-1, 0, :3]) == pictures.WRONG and image[-1, 0, 3] >= 40 and image[0, -1, 3] == 0
