"""How far made images are from real ones: Frechet and kernel distance, precision, recall, density, coverage, PSNR, SSIM.

N real and M made rows of D features; everything is computed in float64, and squared distances by blocks of rows, so that
ten thousand against ten thousand take seconds and no N x M matrix is held. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import keys

ENTRIES = 1 << 22  # numbers in one block: 32 MiB
PIXELS = 1 << 17  # numbers of the images compared at once: no more than caches hold
ROUNDING = 1e-12  # of the squared length: well above what float64 leaves of |x|^2 + |y|^2 - 2 x.y, well below what features mean
PEAK = 255.0
SIGMA, REACH = 1.5, 5  # of the Gaussian window of SSIM: 11 x 11

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """mean `[D]` and covariance `[D, D]` (divided by N - 1) of a set of features, float64."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, features: NDArray[Any], weights: NDArray[Any] | None = None) -> Moments:
        """Of the rows of `features` `[N, D]`; integer `weights` `[N]`, not below 0, count each row that often (None: once)."""
        rows = _rows("features", features)
        if weights is None:
            weight = np.ones(len(rows))
        else:
            weights = np.asarray(weights)
            if weights.shape != (len(rows),) or weights.dtype.kind not in "iu" or weights.min() < 0:
                raise ValueError(f"weights must be {len(rows)} integers not below 0, got {weights.dtype} of shape {weights.shape}")
            used = weights > 0
            rows, weight = rows[used], weights[used].astype(np.float64)
        total = float(weight.sum())
        if total < 2:
            raise ValueError(f"weights must count at least 2 rows, got {total:.0f}")
        mean = weight @ rows / total
        spread = (rows - mean) * np.sqrt(weight)[:, None]
        return cls(mean, spread.T @ spread / (total - 1))


def frechet_of(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), never below 0 (see `frechet`)."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"moments must be of the same features, got {a.mean.shape[0]} and {b.mean.shape[0]}")
    # With S = R R^T, the eigenvalues of (S_a^1/2 S_b S_a^1/2)^1/2 are the singular values of R_a^T R_b: real, not below 0,
    # and, as nothing is squared, free of the rounding that a square root would blow up where covariances lack rank.
    common = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    return max(float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * common), 0.0)


def frechet(real: NDArray[Any], made: NDArray[Any]) -> float:
    """The Frechet distance of Gaussians fitted to `real` `[N, D]` and `made` `[M, D]` (FID).

    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium". Defined also
    where D exceeds N. Its bias falls as 1/N, so only sets of the same sizes compare.
    """
    real, made = _pair(real, made)
    return frechet_of(Moments.of(real), Moments.of(made))


def intervals(real: NDArray[Any], made: NDArray[Any], *, seed: int = 0, repeats: int = 100) -> tuple[float, float]:
    """(low, high): a 95 % bootstrap interval of `frechet`, rows of both sets drawn anew `repeats` times.

    A resample holds fewer different rows, and the distance of fewer rows is larger: so the percentiles are moved to where their mean
    is the distance itself.
    """
    real, made = _pair(real, made)
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    drawn = []
    for number in range(repeats):
        generator = keys.generator(seed, "fid", number)
        drawn.append(frechet_of(Moments.of(real, _resample(generator, len(real))), Moments.of(made, _resample(generator, len(made)))))
    low, high = np.quantile(drawn, (0.025, 0.975)) + frechet_of(Moments.of(real), Moments.of(made)) - np.mean(drawn)
    return max(0.0, float(low)), float(high)


def kernel(real: NDArray[Any], made: NDArray[Any], *, subsets: int = 100, size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation, over `subsets` of `size` rows, of the unbiased MMD^2 with (x.y / D + 1)^3 (KID).

    Binkowski et al. 2018, "Demystifying MMD GANs". Subsets are no larger than either set; where they are both sets
    whole, all are the same, so one is computed and the deviation is 0. Unbiased, so it can be below 0.
    """
    real, made = _pair(real, made)
    if subsets < 1 or size < 2:
        raise ValueError(f"subsets must be at least 1 and size at least 2, got {subsets} and {size}")
    size = min(size, len(real), len(made))
    if size == len(real) == len(made):
        return _discrepancy(real, made), 0.0
    values = []
    for number in range(subsets):
        generator = keys.generator(seed, "kid", number)
        chosen = generator.choice(len(real), size, replace=False), generator.choice(len(made), size, replace=False)
        values.append(_discrepancy(real[chosen[0]], made[chosen[1]]))
    return float(np.mean(values)), float(np.std(values))


def precision_recall(real: NDArray[Any], made: NDArray[Any], *, k: int = 3) -> tuple[float, float]:
    """Improved precision (made rows among the real ones) and recall (real rows among the made ones), 0 to 1.

    A row is among a set if it lies in the closed ball from any member to that member's k-th nearest other member.
    Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models".
    """
    real, made = _centred(*_pair(real, made))
    real_limits, made_limits = _limits("real", real, k), _limits("made", made, k)
    precise, recalled = np.zeros(len(made), np.bool_), np.zeros(len(real), np.bool_)
    for at, block in _blocks(real, made):
        precise |= (block <= real_limits[at, None]).any(axis=0)
        recalled[at] = (block <= made_limits).any(axis=1)
    return float(precise.mean()), float(recalled.mean())


def density_coverage(real: NDArray[Any], made: NDArray[Any], *, k: int = 5) -> tuple[float, float]:
    """Density (real balls around a made row, over k; about 1 for equal distributions) and coverage (real balls with a made row).

    Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models". Balls are closed, as in
    `precision_recall`, so that repeated rows lie in their own; the authors' code leaves the border out, which
    differs only where a made row is a copy of a real one or distances tie.
    """
    real, made = _centred(*_pair(real, made))
    limits = _limits("real", real, k)
    inside, covered = 0, np.zeros(len(real), np.bool_)
    for at, block in _blocks(real, made):
        within = block <= limits[at, None]
        inside += int(np.count_nonzero(within))
        covered[at] = within.any(axis=1)
    return inside / (k * len(made)), float(covered.mean())


def nearest(real: NDArray[Any], made: NDArray[Any], k: int = 1) -> tuple[Ints, Floats]:
    """The k real rows nearest to each made row, nearest first: indices int64 `[M, k]`, distances `[M, k]`. One made row will do."""
    real, made = _centred(*_pair(real, made, least=1))
    _check_neighbours("real", k, len(real))
    indices, distances = np.empty((len(made), k), np.int64), np.empty((len(made), k))
    for at, block in _blocks(made, real):
        found = np.argmin(block, axis=1)[:, None] if k == 1 else np.sort(np.argpartition(block, k - 1, axis=1)[:, :k], axis=1)
        # By differences, so that copies are at exactly 0.
        exact = np.stack([np.linalg.norm(real[column] - made[at], axis=1) for column in found.T], axis=1)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[at], distances[at] = np.take_along_axis(found, order, axis=1), np.take_along_axis(exact, order, axis=1)
    return indices, distances


def psnr(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Peak signal-to-noise ratio in dB, peak 255, of uint8 images `[N, H, W, C]`: float64 `[N]`, infinite for equal images."""
    _check_images(a, b)
    errors = np.array([np.square(x.astype(np.float64) - y).mean() for x, y in zip(a, b)], np.float64)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / errors)


def ssim(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Mean structural similarity of uint8 images `[N, H, W, C]`: float64 `[N]`, 1 for equal images.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity": Gaussian window of
    11 x 11, sigma 1.5, K1 .01, K2 .03, range 255; the mean over channels and all pixels. Windows that reach over the
    border see the image mirrored (as torchmetrics 1.9), whatever its size.
    """
    _check_images(a, b)
    count = max(1, PIXELS // int(np.prod(a.shape[1:])))
    parts = [_ssim(a[at : at + count].astype(np.float64), b[at : at + count].astype(np.float64)) for at in range(0, len(a), count)]
    return np.concatenate(parts) if parts else np.zeros(0)


def perceived(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Distance of images on the maps of a network, `[N, F, P]` of P places each: float64 `[N]`, 0 (equal) to 4 (opposite).

    Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", equation 1, of one layer and with
    weights of 1: features are scaled to length 1 at each place; the squared difference, its mean over the places.
    """
    if a.ndim != 3 or a.shape != b.shape or 0 in a.shape[1:]:
        raise ValueError(f"maps must be [N, F, P] of one shape, got {a.shape} and {b.shape}")
    a, b = (x / np.sqrt(np.square(x).sum(1, keepdims=True) + 1e-10) for x in (a.astype(np.float64), b.astype(np.float64)))
    return np.square(a - b).sum(1).mean(1)


def _ssim(a: Floats, b: Floats) -> Floats:
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_a, mean_b = _blurred(a), _blurred(b)
    squares, products = mean_a**2 + mean_b**2, mean_a * mean_b
    variances = np.maximum(_blurred(a**2 + b**2) - squares, 0)
    covariance = _blurred(a * b) - products
    similarity = (2 * products + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.mean(axis=(1, 2, 3))


def _blurred(images: Floats) -> Floats:
    from scipy.ndimage import correlate1d

    window = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / SIGMA) ** 2)
    window /= window.sum()
    return correlate1d(correlate1d(images, window, axis=1, mode="mirror"), window, axis=2, mode="mirror")


def _root(covariance: Floats) -> Floats:
    """R `[D, rank]` with R R^T = `covariance`; eigenvalues that are nothing but rounding are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _resample(generator: np.random.Generator, count: int) -> Ints:
    return np.bincount(generator.integers(0, count, count), minlength=count)


def _discrepancy(x: Floats, y: Floats) -> float:
    """The unbiased MMD^2 of two sets of the same size `[n, D]`."""
    n = len(x)
    own = _kernel_sum(x, x) + _kernel_sum(y, y) - sum(float(((_squares(z) / z.shape[1] + 1) ** 3).sum()) for z in (x, y))
    return own / (n * (n - 1)) - 2 * _kernel_sum(x, y) / n**2


def _kernel_sum(x: Floats, y: Floats) -> float:
    total = 0.0
    for at in _slices(x, y):
        values = x[at] @ y.T
        values /= x.shape[1]
        values += 1
        total += float(np.vdot(values * values, values))
    return total


def _squares(rows: Floats) -> Floats:
    return np.einsum("nd,nd->n", rows, rows)


def _slices(a: Floats, b: Floats) -> Iterator[slice]:
    """Rows of `a` by so many that neither they nor their pairs with all of `b` exceed a block."""
    count = max(1, ENTRIES // max(b.shape))
    return (slice(at, at + count) for at in range(0, len(a), count))


def _blocks(a: Floats, b: Floats) -> Iterator[tuple[slice, Floats]]:
    """(rows of `a`, their squared distances to all rows of `b`), block by block; callers may overwrite a block."""
    squares = _squares(b)
    for at in _slices(a, b):
        block = a[at] @ b.T
        block *= -2
        block += squares
        block += _squares(a[at])[:, None]
        yield at, np.maximum(block, 0, out=block)


def _limits(what: str, rows: Floats, k: int) -> Floats:
    """The squared distance of each row to its k-th nearest other row `[N]`, and so much more that rounding breaks no tie."""
    _check_neighbours(what, k, len(rows))
    limits = np.empty(len(rows))
    for at, block in _blocks(rows, rows):
        block.partition(k, axis=1)  # each row itself, or a copy of it, is the smallest
        limits[at] = block[:, k]
    return limits + ROUNDING * (limits + _squares(rows))


def _centred(real: Floats, made: Floats) -> tuple[Floats, Floats]:
    """Both from the median of the real rows: less is cancelled in distances, and features on a grid stay exact."""
    origin = np.median(real, axis=0)
    return real - origin, made - origin


def _pair(real: NDArray[Any], made: NDArray[Any], *, least: int = 2) -> tuple[Floats, Floats]:
    x, y = _rows("real", real), _rows("made", made, least)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"real and made must have the same number of features, got {x.shape[1]} and {y.shape[1]}")
    return x, y


def _rows(what: str, features: NDArray[Any], least: int = 2) -> Floats:
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0 or features.dtype.kind not in "fiu":
        raise ValueError(f"{what} must be rows of numbers [N, D], got {features.dtype} of shape {features.shape}")
    if len(features) < least:
        raise ValueError(f"{what} must have at least {least} rows, got {len(features)}")
    if not np.isfinite(features).all():
        raise ValueError(f"{what} must be finite, got {int((~np.isfinite(features)).any(axis=1).sum())} rows with NaN or infinity")
    return features.astype(np.float64, copy=False)


def _check_neighbours(what: str, k: int, count: int) -> None:
    if not 1 <= k < count:
        raise ValueError(f"k must be at least 1 and below the number of {what} rows, {count}, got {k}")


def _check_images(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 4 or a.shape != b.shape or 0 in a.shape[1:]:
        raise ValueError(f"images must be uint8 [N, H, W, C] of one shape, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
