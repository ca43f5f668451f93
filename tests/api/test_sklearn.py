"""The estimators keep to scikit-learn's own checks, and work in its searches, on arrays of images and on paths."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import guard
import saccade
from saccade.core.errors import UserError
from saccade.sklearn import ImageClassifier, ImageEmbedder

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "small_resnet_8px"
# Numbers of a table have no neighbours to be turned towards, and a few steps must do.
STILL = {"augment.rotate": 0, "augment.shear": 0, "augment.scale": 0, "augment.shift": 0, "ema": 0, "label_smoothing": 0, "lr": 4e-3}


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(**options: Any) -> ImageClassifier:
    return ImageClassifier(**{"model": NAME, "epochs": 6, "batch": 32, "device": "cpu", "set": STILL} | options)


def bright(n: int = 24, size: tuple[int, int] = (12, 9)) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """uint8 [N, H, W, 3] of two kinds, dark and light, and their names."""
    generator = np.random.default_rng(0)
    names = np.where(np.arange(n) % 2 == 0, "light one", "dark, too")
    level = np.where(np.arange(n) % 2 == 0, 170, 20)
    return (level[:, None, None, None] + generator.integers(0, 80, (n, *size, 3))).astype(np.uint8), names


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    """The same as files, of several sizes."""
    images, names = bright()
    paths = [str(tmp_path / f"{number} -x.png") for number in range(len(images))]
    for path, pixels, cut in zip(paths, images, range(len(images)), strict=True):
        Image.fromarray(pixels[: 12 - cut % 3]).save(path)
    return paths, names


def outcomes(estimator: Any) -> list[str]:
    """What became of each of scikit-learn's checks: its name where it has passed."""
    with guard.GUARD.allow("unpickling"):  # one of the checks is that they can be pickled
        rows = check_estimator(estimator, on_skip=None)
    assert {row["status"] for row in rows} <= {"passed", "skipped"}
    return [row["check_name"] for row in rows if row["status"] == "passed"]


@pytest.mark.long
def test_the_classifier_passes_scikit_learns_checks() -> None:
    passed = outcomes(classifier())
    assert len(passed) >= 50
    assert {"check_classifiers_train", "check_classifiers_classes", "check_methods_subset_invariance", "check_fit_idempotent"} <= set(
        passed
    )


@pytest.mark.long
def test_the_embedder_passes_scikit_learns_checks() -> None:
    passed = outcomes(ImageEmbedder(NAME, size=8, device="cpu"))
    assert len(passed) >= 40
    assert {"check_transformer_general", "check_methods_subset_invariance", "check_estimators_pickle"} <= set(passed)


class Forgetful(ImageEmbedder):
    """One that gives the first row only."""

    def transform(self, X: Any) -> Any:  # noqa: N803
        return super().transform(X)[:1]


def test_the_checks_can_fail() -> None:
    with pytest.raises((AssertionError, ValueError)):
        outcomes(Forgetful(NAME, size=8, device="cpu"))


@pytest.mark.long
def test_arrays_and_paths_in_searches(files: Any) -> None:
    images, names = bright()
    made = classifier().fit(images, names)
    assert made.classes_.tolist() == ["dark, too", "light one"]
    assert made.score(images, names) == 1
    probabilities = made.predict_proba(images)
    assert (probabilities.shape, probabilities.dtype) == ((24, 2), np.float32)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert cross_val_score(classifier(), images, names, cv=2).min() > 0.9
    paths, _ = files
    assert cross_val_score(classifier(), paths, names, cv=2).min() > 0.9
    search = GridSearchCV(classifier(), {"epochs": [1, 6]}, cv=2).fit(images, names)
    assert search.best_score_ > 0.9
    assert search.predict([Image.fromarray(images[0]), images[1]]).tolist() == ["light one", "dark, too"]
    assert made.predict(np.array(paths, object)).tolist() == names.tolist()
    again = clone(made).fit(images, names)
    np.testing.assert_array_equal(again.predict_proba(images), probabilities)
    other = clone(made).set_params(random_state=1).fit(images, names)
    assert np.abs(other.predict_proba(images) - probabilities).max() > 1e-4
    with guard.GUARD.allow("unpickling"):
        copy = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(copy.predict_proba(images), probabilities)


@pytest.mark.long
def test_embeddings_in_a_pipeline(files: Any) -> None:
    images, names = bright()
    paths, _ = files
    for given in (images, paths, images[..., 0]):
        probe = make_pipeline(ImageEmbedder(NAME, size=8, device="cpu"), LogisticRegression())
        assert cross_val_score(probe, given, names, cv=3).min() > 0.9
    nearest = make_pipeline(ImageEmbedder(NAME, size=8, device="cpu"), KNeighborsClassifier())
    grid = {"imageembedder__layer": ["features.1", None], "kneighborsclassifier__n_neighbors": [1, 3]}
    search = GridSearchCV(nearest, grid, cv=2).fit(paths, names)
    assert search.best_score_ > 0.9
    embedder = ImageEmbedder(NAME, layer="features.1", size=8, device="cpu").fit(images)
    assert embedder.transform(images).dtype == np.float32
    assert embedder.get_feature_names_out().tolist() == [f"imageembedder{i}" for i in range(32)]
    expected = saccade.embed(NAME, images, size=8, layer="features.1", seed=0, device="cpu")
    assert embedder.transform(images).shape == expected.shape


def test_rows_of_numbers_are_flat_images() -> None:
    digits = load_digits()
    flat, square = digits.data[:40], digits.images[:40]
    embedder = ImageEmbedder(NAME, size=8, device="cpu", image_shape=(8, 8)).fit(flat)
    assert embedder.range_ == (0.0, 16.0)
    assert embedder.n_features_in_ == 64
    pixels = np.rint(square * (255 / 16)).astype(np.uint8)
    np.testing.assert_array_equal(embedder.transform(flat), ImageEmbedder(NAME, size=8, device="cpu").fit_transform(pixels))
    colour = np.random.default_rng(0).integers(0, 256, (5, 4 * 3 * 3), dtype=np.uint8)
    flat_colour = ImageEmbedder(NAME, size=8, device="cpu", image_shape=(4, 3, 3)).fit_transform(colour)
    np.testing.assert_array_equal(flat_colour, ImageEmbedder(NAME, size=8, device="cpu").fit_transform(colour.reshape(5, 4, 3, 3)))
    with pytest.raises(ValueError, match=r"image_shape must be .* of 64 features, got \(8, 9\)"):
        ImageEmbedder(NAME, image_shape=(8, 9)).fit(flat)


@pytest.mark.long
def test_what_a_fit_leaves(tmp_path: Path) -> None:
    images, labels = bright(12)[0], np.arange(12) % 2 * 10
    made = [classifier(epochs=1, run_dir=tmp_path / "kept").fit(images, labels) for _ in range(2)]
    assert [one.run_ for one in made] == [tmp_path / "kept" / f"fit-{n}" / "run" for n in (1, 2)]
    run = saccade.load_run(made[0].run_)
    assert run.report.is_file()
    assert saccade.load(run.path, device="cpu").card.classes == ("0", "10")
    assert set(run.evaluate(device="cpu").metrics) >= {"accuracy"}
    assert made[0].predict(images).dtype == labels.dtype
    assert classifier(epochs=1).fit(images, labels).run_ is None


def test_a_run_without_its_report(shapes: Path, tmp_path: Path) -> None:
    run = saccade.train(shapes, model=NAME, epochs=0.2, size=8, device="cpu", report=False, out=tmp_path / "run")
    assert run.record["state"] == "done"
    assert not run.report.exists()
    assert run.metrics["accuracy"] is not None
    assert saccade.load(run.model, device="cpu").card.classes


def test_what_cannot_be_learned_is_said(tmp_path: Path) -> None:
    images, names = bright(8)
    (tmp_path / "bad.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="one class: 'x'"):
        classifier().fit(images, ["x"] * 8)
    with pytest.raises(ValueError, match="class 'z' has one"):
        classifier().fit(images, [*names[:7], "z"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier().fit(images, names[:7])
    with pytest.raises(UserError, match="differ in more than blanks"):
        classifier().fit(images, ["a b", "a  b"] * 4)
    with pytest.raises(UserError, match=r"0000007\.png"):
        classifier().fit([*images[:7], str(tmp_path / "bad.png")], names)
    with pytest.raises(UserError, match=r"gone\.png"):
        classifier().fit([*images[:7], "gone.png"], names)
    with pytest.raises(UserError, match="did you mean small_resnet_8px"):
        classifier(model="small_resnet_9px").fit(images, names)
    with pytest.raises(UserError, match="uint8"):
        classifier().fit(images / 255, names)
    with pytest.raises(NotFittedError):
        classifier().predict(images)
    with pytest.raises(ValueError, match="one image alone is"):  # not so many grey images, three pixels wide
        ImageEmbedder(NAME, size=8).fit(images[0])
    with pytest.raises(ValueError, match="model must name a network"):
        ImageEmbedder().fit(images)
    with pytest.raises(UserError, match="unknown layer"):
        ImageEmbedder(NAME, layer="head3", size=8).fit(images)
