"""Mirrored views: the mean of their probabilities, back in place; classes that overlap; tiles; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.core import tiles
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.prediction import flips, pipeline
from saccade.prediction.sources import expand

SPEC = InputSpec(1, (64, 64), "native")


class Leaning:
    """Logits that depend on where a pixel stands, so that each view answers something else."""

    streams, batch = 1, 8

    def __init__(self, *, multi: bool = False) -> None:
        self.card = Card("segment", ("background", "a", "b"), {"multi": True} if multi else {}, SPEC)

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        light = images[:, 0].astype(np.float32) / 64 - 2
        down, across = np.indices(light.shape[1:], dtype=np.float32)
        return {"logits": np.stack([light + across / 9, 1 - light + down / 7, light * down / 20], 1)}


def pixels(height: int = 17, width: int = 11) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 1, height, width), dtype=np.uint8)


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    weights = np.exp(logits.astype(np.float64))
    return weights / weights.sum(1, keepdims=True)


def sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize(("multi", "squash"), [(False, softmax), (True, sigmoid)])
def test_the_mean_of_four_views(multi: bool, squash: Any) -> None:
    session, images = Leaning(multi=multi), pixels()
    expected = np.zeros((2, 3, 17, 11))
    for across in (False, True):
        for down in (False, True):
            view = images[..., ::-1] if across else images
            view = view[:, :, ::-1] if down else view
            told = squash(session.run(view)["logits"])
            told = told[..., ::-1] if across else told
            expected += (told[:, :, ::-1] if down else told) / 4
    found = flips.Flipped(session).run(images)["logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(squash(found), expected, atol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    class Sure(Leaning):
        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            return {"logits": super().run(images)["logits"] * 1e4}

    for multi in (False, True):
        assert np.isfinite(flips.Flipped(Sure(multi=multi)).run(pixels())["logits"]).all()


def test_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are mirrored one by one; where a network sees nothing but the pixel, the answer is that of the whole."""

    class Local(Leaning):
        def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            light = images[:, 0].astype(np.float32) / 64 - 2
            return {"logits": np.stack([light, 1 - light, light * 0], 1)}

    image = pixels(300, 203)[0, 0]
    whole = list(pipeline.stream(flips.Flipped(Local()), expand([image])))
    for name, value in (("TILE", 128), ("OVERLAP", 64), ("WHOLE", 100 * 100)):
        monkeypatch.setattr(tiles, name, value)
    (tiled,) = pipeline.stream(flips.Flipped(Local()), expand([image]))
    np.testing.assert_array_equal(tiled.mask, whole[0].mask)
    np.testing.assert_allclose(tiled.uncertainty, whole[0].uncertainty, atol=0.005)


def test_refused_for_others() -> None:
    session = Leaning()
    session.card = Card("classify", ("a", "b"), {}, SPEC)
    with pytest.raises(UserError, match="for pixels, this model is for classify") as error:
        flips.Flipped(session)
    assert error.value.where == "--tta"
