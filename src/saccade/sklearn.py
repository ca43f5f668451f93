"""Images in scikit-learn: a classifier that `saccade.train` trains, and a network as a transformer from images to vectors.

Both take what scikit-learn's searches and splits can cut: arrays uint8 `[N, H, W, C]` or `[N, H, W]`, lists of paths, PIL images or arrays
of any sizes, and tables of numbers `[N, features]`, whose rows are images that lie flat (`image_shape` says of which shape).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from saccade.api import estimating

__all__ = ["ImageClassifier", "ImageEmbedder"]

NO_TARGETS = "requires y to be passed, but the target y is None"


class _OfImages(BaseEstimator):
    """What becomes of X: a list of images, each as `saccade.predict` takes it."""

    image_shape: tuple[int, ...] | None

    def _taken(self, X: Any, y: Any = None, *, fit: bool) -> tuple[list[Any], Any]:
        """The images, and y as it is checked beside them (None stays None)."""
        if not _is_table(X):
            if getattr(X, "ndim", 0) == 3 and X.shape[2] in (1, 3, 4):  # it would be grey images as narrow as that
                raise ValueError(f"images must be an array [N, H, W, C] or [N, H, W], got {X.shape}: one image alone is X[None]")
            content = list(X)
            if not content:
                raise ValueError("Found array with 0 sample(s): a minimum of 1 is required")
            if y is not None:
                y = column_or_1d(y, warn=True)
                check_consistent_length(content, y)
            return content, y
        given = {} if y is None else {"y": y}
        checked = validate_data(self, X, dtype="numeric", reset=fit, **given)
        table, y = checked if given else (checked, None)
        if fit:
            self._measure(table)
        return list(self._images(table)), y

    def _measure(self, table: NDArray[Any]) -> None:
        """Which numbers are black and white: 0 and 255 of uint8, else the least and the largest seen."""
        shape = self.image_shape or (1, table.shape[1])
        if len(shape) not in (2, 3) or math.prod(shape) != table.shape[1] or min(shape) < 1:
            raise ValueError(f"image_shape must be (height, width) or (height, width, channels) of {table.shape[1]} features, got {shape}")
        if table.dtype == np.uint8:
            self.range_ = (0.0, 255.0)
        else:
            low, high = float(table.min()), float(table.max())
            self.range_ = (low, high if high > low else low + 1)

    def _images(self, table: NDArray[Any]) -> NDArray[np.uint8]:
        low, high = self.range_
        pixels = np.clip(np.rint((table.astype(np.float64) - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
        return pixels.reshape(len(table), *(self.image_shape or (1, table.shape[1])))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _is_table(X: Any) -> bool:
    """Whether X holds no images but numbers, or what scikit-learn itself refuses."""
    dimensions = getattr(X, "ndim", None)
    if dimensions in (3, 4):
        return False
    return not (isinstance(X, list | tuple) or dimensions == 1) or not len(X) or not all(map(_is_image, X))


def _is_image(one: Any) -> bool:
    return isinstance(one, str | os.PathLike | bytes) or hasattr(one, "getbands") or getattr(one, "ndim", 0) > 1


class ImageClassifier(ClassifierMixin, _OfImages):
    """A classifier of images, trained by `saccade.train` on whatever X it is fitted to.

    model, epochs, minutes, size, batch, pretrained, device and set are options of `saccade.train`, None: as its recipe chooses, which on a
    processor may take 18 minutes. image_shape: (height, width) or (height, width, channels) of the rows of a table of numbers; None: one
    row of grey pixels. Numbers that are not uint8 are scaled so that the least and the largest of the training table are black and white.
    run_dir: keeps what each fit leaves (data, run folder, report) as fit-1, fit-2 ... in it; None: nothing is kept but the model.
    verbose: show how far training is. random_state: an int makes the same model each time, as long as `minutes` is not given.

    classes_: `[K]`, sorted; model_: the `saccade.Model`; run_: the run's folder, or None; n_features_in_: of tables.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        epochs: float | None = None,
        minutes: float | None = None,
        size: tuple[int, int] | str | int | None = None,
        batch: int | None = None,
        pretrained: bool = False,
        set: Mapping[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        run_dir: str | Path | None = None,
        device: str = "auto",
        verbose: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.minutes = minutes
        self.size = size
        self.batch = batch
        self.pretrained = pretrained
        self.set = set
        self.image_shape = image_shape
        self.run_dir = run_dir
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train on images X, N of them, and their classes y `[N]`; of each class a part, one image at least, is held out to choose the best
        state by. Raises ValueError for a class of one image, UserError for images that cannot be read, named by their number in X."""
        if y is None:
            raise ValueError(f"{type(self).__name__} {NO_TARGETS}.")
        images, y = self._taken(X, y, fit=True)
        check_classification_targets(y)
        self.classes_, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs at least two classes, the data have one class: {self.classes_.tolist()[0]!r}")
        if counts.min() < 2:
            raise ValueError(
                f"each class must have at least two images, class {self.classes_.tolist()[counts.argmin()]!r} has one (n_samples=1)"
            )
        options = {name: getattr(self, name) for name in ("model", "epochs", "minutes", "batch", "pretrained", "set", "device")}
        flat = _is_table(X) and self.image_shape is None
        options["size"] = (1, len(images[0][0])) if flat and self.size is None else self.size
        options["seed"] = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.model_, self.run_ = estimating.learn(images, labels.tolist(), self.classes_.tolist(), options, self.run_dir, self.verbose)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """float32 `[N, K]`, in the order of `classes_`."""
        check_is_fitted(self)
        return estimating.probabilities(self.model_, self._taken(X, fit=False)[0], self.classes_.tolist())

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each image, `[N]`."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]


class ImageEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _OfImages):
    """A network as a transformer: images to vectors float32 `[N, D]`, as `saccade.embed` makes them.

    model: the name of a network that classifies, a model file or a run; pretrained, layer, size and device as of `saccade.embed`;
    image_shape as of `ImageClassifier`. random_state: of random weights, where those are not pretrained. Nothing is learned from X.

    model_: the `saccade.Model`; n_features_in_: of tables.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        pretrained: bool = False,
        layer: str | None = None,
        size: tuple[int, int] | str | int | None = None,
        image_shape: tuple[int, ...] | None = None,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.pretrained = pretrained
        self.layer = layer
        self.size = size
        self.image_shape = image_shape
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Open the network, and try it on the first image."""
        images, _ = self._taken(X, fit=True)
        if self.model is None:
            raise ValueError("model must name a network, a model file or a run: ImageEmbedder('resnet18', pretrained=True)")
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        options = {"pretrained": self.pretrained, "size": self.size, "device": self.device, "seed": seed}
        self.model_ = estimating.embedder(self.model, options)
        self._n_features_out = estimating.vectors(self.model_, images[:1], self.layer).shape[1]
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """float32 `[N, D]`; raises UserError for the first image that cannot be read."""
        check_is_fitted(self)
        return estimating.vectors(self.model_, self._taken(X, fit=False)[0], self.layer)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
