"""Distances of made images from real ones: closed forms, naive loops, torchmetrics, and no difference by blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from saccade.core import keys
from saccade.tasks.generation import distances, sharpening
from saccade.tasks.generation.distances import (
    Moments,
    density_coverage,
    frechet,
    frechet_of,
    intervals,
    kernel,
    nearest,
    perceived,
    precision_recall,
    psnr,
    ssim,
)


def features(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def noisy(images: np.ndarray, amount: int, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-amount, amount + 1, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


class Flat(torch.nn.Module):
    """What FrechetInceptionDistance takes for a network: its pixels are the features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).double()


# Frechet


def test_frechet_of_diagonal_gaussians_is_the_closed_form() -> None:
    a = Moments(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 0.0]))
    b = Moments(np.array([1.0, 0.0, 4.0]), np.diag([1.0, 1.0, 2.0]))
    assert frechet_of(a, b) == pytest.approx(0 + 4 + 1 + (2 - 1) ** 2 + (3 - 1) ** 2 + 2, rel=1e-14)


def test_frechet_of_rotated_gaussians_is_invariant() -> None:
    turn = np.linalg.qr(features(4, 4))[0]
    a, b = np.diag([4.0, 1.0, 2.0, 1e-9]), np.diag([1.0, 3.0, 2.0, 5.0])
    straight = frechet_of(Moments(np.zeros(4), a), Moments(np.zeros(4), b))
    assert frechet_of(Moments(np.zeros(4), turn @ a @ turn.T), Moments(np.zeros(4), turn @ b @ turn.T)) == pytest.approx(
        straight, rel=1e-10
    )


@pytest.mark.parametrize(("n", "d"), [(50, 3), (2, 1), (2, 7), (6, 40), (40, 40)])
def test_frechet_of_a_set_and_itself_is_nothing_and_of_a_shift_its_square(n: int, d: int) -> None:
    x, shift = features(n, d), np.arange(d) + 0.5
    trace = np.trace(Moments.of(x).covariance)
    assert 0 <= frechet(x, x) < 1e-12 * trace
    assert 0 <= frechet(x, x[::-1]) < 1e-12 * trace
    assert frechet(x, x + shift) == pytest.approx(shift @ shift, abs=1e-10)


def test_frechet_of_sets_without_a_common_direction() -> None:
    turn = np.linalg.qr(features(40, 40))[0]
    x, y = features(30, 3) @ turn[:3], features(20, 5, 1) @ turn[3:8]
    expected = np.square(x.mean(0) - y.mean(0)).sum() + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum()
    assert frechet(x, y) == pytest.approx(expected, rel=1e-13)


def test_frechet_of_constant_features() -> None:
    x = np.full((5, 3), 7.0)
    assert frechet(x, x) == 0
    assert frechet(x, x + 2) == pytest.approx(12)
    y = features(9, 3)
    assert frechet(x, y) == pytest.approx(np.square(7 - y.mean(0)).sum() + y.var(0, ddof=1).sum())


@pytest.mark.parametrize(("n", "m"), [(60, 40), (9, 7)])  # 12 features: with full covariances and without
def test_frechet_agrees_with_torchmetrics(n: int, m: int) -> None:
    real, made = pictures(n, 3, 2, 2, seed=1), pictures(m, 3, 2, 2, seed=2) // 2
    metric = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(made), real=False)
    found = frechet(real.reshape(n, 12), made.reshape(m, 12))
    # Theirs takes the square root of eigenvalues that rounding alone sets off from 0.
    assert found == pytest.approx(float(metric.compute()), rel=1e-10 if n > 12 else 1e-5)


def test_weighted_moments_are_those_of_repeated_rows() -> None:
    x, weights = features(20, 4), np.random.default_rng(3).integers(0, 4, 20)
    weighted, repeated = Moments.of(x, weights), Moments.of(np.repeat(x, weights, axis=0))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.covariance, repeated.covariance, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(Moments.of(x).covariance, np.cov(x.T), rtol=1e-12)
    assert Moments.of(x.astype(np.float16)).covariance.dtype == np.float64


def test_intervals_are_those_of_repeated_rows_around_the_distance() -> None:
    real, made = features(30, 3), features(20, 3, 1) + 1
    drawn = []
    for i in range(10):
        generator = keys.generator(5, "fid", i)
        drawn.append(frechet(real[generator.integers(0, 30, 30)], made[generator.integers(0, 20, 20)]))
    found = intervals(real, made, seed=5, repeats=10)
    moved = frechet(real, made) - np.mean(drawn)
    assert found == pytest.approx((np.percentile(drawn, 2.5) + moved, np.percentile(drawn, 97.5) + moved), rel=1e-10)
    assert found == intervals(real, made, seed=5, repeats=10) != intervals(real, made, seed=6, repeats=10)


def test_intervals_hold_the_truth_where_rows_abound() -> None:
    low, high = intervals(features(2000, 2), features(2000, 2, 1) + 1)
    assert low < 2 < high and high - low < 0.6


# Kernel


def test_kernel_in_one_dimension_by_hand() -> None:
    # Between 0 and 1: (0 + 1)^3 = 1; between 2 and 3: (6 + 1)^3 = 343; across: 1, 1, 27, 64.
    assert kernel(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])) == (1 + 343 - 2 * (1 + 1 + 27 + 64) / 4, 0.0)


def test_kernel_agrees_with_torchmetrics() -> None:
    real, made = features(40, 6), features(40, 6, 1) * 1.2 + 0.3
    value, deviation = kernel(real, made)
    assert value == pytest.approx(float(poly_mmd(torch.from_numpy(real), torch.from_numpy(made))), rel=1e-10)
    assert deviation == 0  # exactly: one subset, the whole sets


def test_kernel_over_subsets() -> None:
    real, made = features(40, 6), features(30, 6, 1) + 0.3
    values = []
    for i in range(7):
        generator = keys.generator(3, "kid", i)
        x = real[generator.choice(40, 10, replace=False)]
        y = made[generator.choice(30, 10, replace=False)]
        values.append(float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y))))
    assert kernel(real, made, subsets=7, size=10, seed=3) == pytest.approx((np.mean(values), np.std(values)), rel=1e-10)
    mean, deviation = kernel(real, made, subsets=50)  # all of made, 30 of real
    assert deviation > 0 and mean > 3 * deviation


def test_kernel_is_unbiased() -> None:
    mean, deviation = kernel(features(3000, 2), features(3000, 2, 1), size=50)
    assert abs(mean) < deviation


# Balls


def naive(real: np.ndarray, made: np.ndarray, k: int) -> dict[str, float]:
    """Precision, recall, density and coverage, row by row as the papers define them."""

    def distance(x: list[float], y: list[float]) -> float:
        return sum((p - q) ** 2 for p, q in zip(x, y))

    def radii(rows: list[list[float]]) -> list[float]:
        return [sorted(distance(x, rows[j]) for j in range(len(rows)) if j != i)[k - 1] for i, x in enumerate(rows)]

    xs, ys = real.astype(np.float64).tolist(), made.astype(np.float64).tolist()
    real_radii, made_radii = radii(xs), radii(ys)
    inside = [[distance(x, y) <= radius for y in ys] for x, radius in zip(xs, real_radii)]
    back = [any(distance(x, y) <= radius for y, radius in zip(ys, made_radii)) for x in xs]
    return {
        "precision": sum(any(inside[i][j] for i in range(len(real))) for j in range(len(made))) / len(made),
        "recall": sum(back) / len(real),
        "density": sum(sum(row) for row in inside) / k / len(made),
        "coverage": sum(any(row) for row in inside) / len(real),
    }


def found(real: np.ndarray, made: np.ndarray, k: int) -> dict[str, float]:
    figures = (*precision_recall(real, made, k=k), *density_coverage(real, made, k=k))
    return dict(zip(("precision", "recall", "density", "coverage"), figures))


def sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(8)
    x, y = generator.normal(size=(25, 3)), generator.normal(size=(18, 3)) * 0.7 + 0.5
    grid = generator.integers(0, 4, (30, 2)).astype(np.float64), generator.integers(0, 5, (22, 2)).astype(np.float64)
    return {
        "random": (x, y),
        "float32": (x.astype(np.float32), y.astype(np.float32)),
        "ties and duplicates": grid,
        "copies of real rows": (x, np.concatenate([y[:5], x[:9], x[:3], x[:3]])),
        "both repeated": (np.repeat(x[:8], 3, axis=0), np.repeat(np.concatenate([x[:4], y[:3]]), 3, axis=0)),
        "far from the origin": (x + 1e7, np.concatenate([y, x[:6]]) + 1e7),
        "collapsed": (x, np.repeat(x[4:5], 12, axis=0)),
    }


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("name", sets())
def test_balls_agree_with_naive_loops(name: str, k: int) -> None:
    real, made = sets()[name]
    assert found(real, made, k) == pytest.approx(naive(real, made, k))
    assert found(made, real, k) == pytest.approx(naive(made, real, k))


def test_balls_of_equal_and_of_far_sets() -> None:
    x = features(40, 5)
    assert precision_recall(x, x[::-1]) == (1, 1)
    assert density_coverage(x, x) == (pytest.approx(6 / 5), 1)  # closed balls: the row itself and five others
    assert precision_recall(x, x + 100) == (0, 0)
    assert density_coverage(x, x + 100) == (0, 0)


@pytest.mark.parametrize("scale", [1e-3, 1e5])
def test_rounding_breaks_no_tie(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    x = features(101, 67) * scale + scale
    squared = np.square(x[:, None] - x).sum(axis=2)
    inside = squared <= np.sort(squared, axis=1)[:, 4, None]  # some on the border of each ball
    monkeypatch.setattr(distances, "ENTRIES", 150)  # one row at once for the radii, two for the rest: other routines of BLAS
    for i in range(0, 100, 2):
        assert density_coverage(x, x[i : i + 2], k=4)[0] == inside[:, i : i + 2].sum() / 8


def test_limits_are_the_kth_smallest_of_many() -> None:
    x = features(2000, 2)
    squared = np.sort(np.square(x[:, None] - x).sum(axis=2), axis=1)
    np.testing.assert_allclose(distances._limits("real", x, 3), squared[:, 3], rtol=1e-6)


def test_balls_of_constant_features() -> None:
    x = np.full((9, 4), 0.1)
    assert precision_recall(x, x) == (1, 1)
    assert density_coverage(x, x)[1] == 1
    assert precision_recall(x, x + 1) == (0, 0)


def test_one_mode_of_two_covers_one_half() -> None:
    modes = features(400, 2)
    modes[200:] += 50
    made = features(300, 2, 1)
    precision, recall = precision_recall(modes, made)
    density, coverage = density_coverage(modes, made)
    assert precision > 0.9 and recall == pytest.approx(0.5, abs=0.05)
    assert density == pytest.approx(1, abs=0.15) and coverage == pytest.approx(0.5, abs=0.03)


# Nearest


def test_nearest_agrees_with_sorting() -> None:
    real, made = features(30, 4), features(17, 4, 1)
    apart = np.linalg.norm(made[:, None] - real, axis=2)
    for k in (1, 3, 29):
        indices, lengths = nearest(real, made, k)
        assert indices.dtype == np.int64 and indices.shape == lengths.shape == (17, k)
        np.testing.assert_array_equal(indices, np.argsort(apart, axis=1)[:, :k])
        np.testing.assert_allclose(lengths, np.sort(apart, axis=1)[:, :k], rtol=1e-10)


def test_nearest_of_copies_is_at_exactly_nothing() -> None:
    real = features(30, 8).astype(np.float32) + 1000
    indices, lengths = nearest(real, real[[7, 3]], 2)
    assert indices[:, 0].tolist() == [7, 3] and (lengths[:, 0] == 0).all() and (lengths[:, 1] > 0).all()
    assert nearest(real, real[:1])[0].tolist() == [[0]]
    indices, lengths = nearest(np.repeat(real[:1], 60, axis=0), real[:1], 50)
    assert (np.diff(indices) > 0).all() and not lengths.any()


# Blocks


@pytest.mark.parametrize("entries", [1, 25, 60, 333])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    for real, made in sets().values():
        whole = found(real, made, 3), kernel(real, made, subsets=3)
        monkeypatch.setattr(distances, "ENTRIES", entries)
        assert found(real, made, 3) == whole[0]
        assert kernel(real, made, subsets=3) == pytest.approx(whole[1], rel=1e-9, abs=1e-13 * float(np.square(real).sum(1).max() + 1) ** 3)
        monkeypatch.undo()
    x, y = sets()["random"]
    images = pictures(7, 6, 5, 3), pictures(7, 6, 5, 3, seed=1)
    whole_nearest, whole_ssim = nearest(x, y, 4), ssim(*images)
    monkeypatch.setattr(distances, "ENTRIES", entries)
    monkeypatch.setattr(distances, "PIXELS", entries)
    np.testing.assert_array_equal(nearest(x, y, 4)[0], whole_nearest[0])
    np.testing.assert_array_equal(nearest(x, y, 4)[1], whole_nearest[1])
    np.testing.assert_allclose(ssim(*images), whole_ssim, rtol=1e-12)


def test_blocks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "ENTRIES", 100)
    shapes = [block.shape for _, block in distances._blocks(features(23, 2), features(30, 2))]
    assert shapes == [(3, 30)] * 7 + [(2, 30)]
    assert [block.shape for _, block in distances._blocks(features(5, 50), features(3, 50))] == [(2, 3), (2, 3), (1, 3)]


def test_squared_distances_are_never_below_nothing() -> None:
    x = features(90, 67)
    for at, block in distances._blocks(x, x):
        assert block.min() == 0 and np.diagonal(block[:, at]).max() < 1e-12


# Images


def test_psnr_by_hand() -> None:
    a = np.full((3, 4, 5, 3), 100, np.uint8)
    b = a.copy()
    b[1] += 10
    b[2, 0, 0, 0] = 200
    expected = [np.inf, 10 * np.log10(255**2 / 100), 10 * np.log10(255**2 * 60 / 100**2)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-12)
    np.testing.assert_array_equal(psnr(a, b), psnr(b, a))
    assert psnr(a[:0], b[:0]).shape == ssim(a[:0], b[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(3, 11, 11, 1), (2, 32, 24, 3), (2, 8, 13, 3), (2, 6, 6, 1)])
@pytest.mark.parametrize("amount", [3, 40, 255])
def test_ssim_agrees_with_torchmetrics(shape: tuple[int, ...], amount: int) -> None:
    a = pictures(*shape)
    a[0] //= 16
    b = noisy(a, amount)
    tensors = [torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2) for x in (a, b)]
    expected = structural_similarity_index_measure(*tensors, data_range=255.0, reduction="none")
    np.testing.assert_allclose(ssim(a, b), expected.numpy(), rtol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 3), (2, 1, 20, 1)])
def test_ssim_of_images_below_its_window(shape: tuple[int, ...]) -> None:
    a = pictures(*shape)
    np.testing.assert_allclose(ssim(a, a), 1, rtol=1e-12)
    assert (ssim(a, 255 - a) < 1).all() and (ssim(a, noisy(a, 2)) > ssim(a, 255 - a)).all()


def test_perceived_by_hand_and_as_in_training() -> None:
    maps = np.array([[[1.0, 0.0], [0.0, 2.0]]])  # two places, with features along the axes
    assert perceived(maps, maps) == pytest.approx([0.0])
    assert perceived(maps, 3 * maps) == pytest.approx([0.0], abs=1e-9), "lengths do not count"
    assert perceived(maps, -maps) == pytest.approx([4.0])
    assert perceived(maps, maps[:, ::-1]) == pytest.approx([2.0])
    a, b = (features(6 * 5 * 12, 1, seed).reshape(6, 5, 12) for seed in (1, 2))
    trained = sharpening.perceived(*(torch.from_numpy(x.reshape(6, 5, 3, 4)) for x in (a, b)))
    assert perceived(a, b) == pytest.approx(trained.numpy(), rel=1e-5)
    with pytest.raises(ValueError, match="maps must be"):
        perceived(a, b[:3])


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a, b = np.full((1, 20, 20, 3), 50, np.uint8), np.full((1, 20, 20, 3), 200, np.uint8)
    c1 = (0.01 * 255) ** 2
    np.testing.assert_allclose(ssim(a, b), (2 * 50 * 200 + c1) / (50**2 + 200**2 + c1), rtol=1e-8)


# Errors

GOOD = features(6, 3)
PAIRS = {"frechet": frechet, "kernel": kernel, "precision": precision_recall, "density": density_coverage, "intervals": intervals}


@pytest.mark.parametrize("name", [*PAIRS, "nearest"])
def test_bad_features_are_named(name: str) -> None:
    function = {**PAIRS, "nearest": nearest}[name]
    nan, infinite = GOOD.copy(), GOOD.copy()
    nan[2, 1], infinite[4, 0] = np.nan, -np.inf
    for bad, message in [
        (GOOD[0], "rows of numbers"),
        (GOOD[:, :0], "rows of numbers"),
        (GOOD.astype(str), "rows of numbers"),
        (GOOD[:0], "at least"),
        (nan, "must be finite, got 1 rows"),
        (infinite, "must be finite"),
    ]:
        with pytest.raises(ValueError, match=f"real must .*{message}|real {message}"):
            function(bad, GOOD)
        with pytest.raises(ValueError, match=f"made must .*{message}|made {message}"):
            function(GOOD, bad)
    with pytest.raises(ValueError, match="same number of features, got 3 and 2"):
        function(GOOD, GOOD[:, :2])


@pytest.mark.parametrize("name", PAIRS)
def test_one_row_is_too_few(name: str) -> None:
    with pytest.raises(ValueError, match="real must have at least 2 rows, got 1"):
        PAIRS[name](GOOD[:1], GOOD)
    with pytest.raises(ValueError, match="made must have at least 2 rows, got 1"):
        PAIRS[name](GOOD, GOOD[:1])


@pytest.mark.parametrize("k", [0, -1, 6, 7])
def test_k_must_be_below_the_rows(k: int) -> None:
    more = features(20, 3)
    for function in (precision_recall, density_coverage, nearest):
        with pytest.raises(ValueError, match=f"below the number of real rows, 6, got {k}"):
            function(GOOD, more, k=k)
    if k > 0:
        with pytest.raises(ValueError, match=f"below the number of made rows, 6, got {k}"):
            precision_recall(more, GOOD, k=k)


def test_other_bad_arguments() -> None:
    for weights in (np.ones(5, int), np.ones(6), -np.ones(6, int)):
        with pytest.raises(ValueError, match="weights must be 6 integers not below 0"):
            Moments.of(GOOD, weights)
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        Moments.of(GOOD, np.array([0, 0, 1, 0, 0, 0]))
    with pytest.raises(ValueError, match="same features"):
        frechet_of(Moments.of(GOOD), Moments.of(GOOD[:, :2]))
    with pytest.raises(ValueError, match="subsets"):
        kernel(GOOD, GOOD, subsets=0)
    with pytest.raises(ValueError, match="size"):
        kernel(GOOD, GOOD, size=1)
    with pytest.raises(ValueError, match="repeats"):
        intervals(GOOD, GOOD, repeats=0)


@pytest.mark.parametrize("function", [psnr, ssim])
def test_bad_images_are_named(function: object) -> None:
    a = pictures(2, 12, 12, 3)
    for x, y in [(a, a[:1]), (a[0], a[0]), (a / 255.0, a), (a[:, :0], a[:, :0])]:
        with pytest.raises(ValueError, match="images must be uint8"):
            function(x, y)  # type: ignore[operator]
