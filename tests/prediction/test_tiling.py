"""Large images in tiles: the same logits as at once for a network that sees less than a quarter of the overlap; the same answer whether
evaluated or predicted; bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from saccade.core import tiles
from saccade.core.card import Card, InputSpec
from saccade.core.prepare import prepare
from saccade.core.segmentation import Segmentation
from saccade.prediction import pipeline, tiling
from saccade.prediction.sources import expand
from saccade.prediction.torch_session import TorchSession
from saccade.tasks.segmentation.task import MEAN, STD
from saccade.tasks.segmentation.task import Segmentation as Room

CARD = Card("segment", ("background", "a", "b"), {}, InputSpec(3, (64, 64), "native", MEAN, STD))


class Near(nn.Module):
    """Sees 6 pixels to each side; works on cells of 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 8, 4, 4)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 3, 4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.up(torch.relu(self.middle(torch.relu(self.down(images.float() / 255)))))
        return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 128 pixels that share 64, for images of more than 160 x 160."""
    for name, value in (("TILE", 128), ("OVERLAP", 64), ("WHOLE", 160 * 160)):
        monkeypatch.setattr(tiles, name, value)


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", [(300, 500), (161, 161), (129, 1000), (640, 128)])
def test_the_same_as_at_once(shape: tuple[int, int]) -> None:
    session = TorchSession(Near().eval(), CARD, Room().decode)
    image = prepare(picture(*shape), CARD.input)[None]
    assert tiling.large(CARD, shape)
    at_once, in_tiles = session.run(image)["logits"], tiling.run(session, image)["logits"]
    assert in_tiles.shape == at_once.shape
    np.testing.assert_allclose(in_tiles, at_once, atol=1e-4)


@pytest.mark.usefixtures("small")
def test_predicted_as_evaluated() -> None:
    from saccade.core import finish

    session = TorchSession(Near().eval(), CARD, Room().decode)
    pixels = [picture(300, 411), picture(40, 50), picture(170, 170)]
    answers: list[Any] = list(pipeline.stream(session, expand(pixels)))
    for one, answer in zip(pixels, answers, strict=True):
        logits = tiling.run(session, prepare(one, CARD.input)[None])
        (expected,) = finish.results(logits, CARD, [one.shape[:2]], ["x"])
        assert isinstance(answer, Segmentation) and isinstance(expected, Segmentation)
        assert (answer.mask == expected.mask).mean() > 0.9999
        assert answer.uncertainty is not None and expected.uncertainty is not None
        assert np.abs(answer.uncertainty - expected.uncertainty).max() < 0.01


def test_other_ways_are_never_tiled() -> None:
    fitted = Card("segment", ("a", "b"), {}, InputSpec(3, (64, 64), "fit"))
    assert not tiling.large(fitted, (20_000, 20_000)) and tiling.large(CARD, (20_000, 20_000))
    assert not tiling.large(CARD, (2048, 2048)) and tiling.large(CARD, (2048, 2049))


PROGRAM = """
import resource, sys
import numpy as np
from saccade.core.card import Card, InputSpec
from saccade.prediction import pipeline
from saccade.prediction.sources import expand

class Brightness:
    card = Card("segment", ("background", "a"), {}, InputSpec(1, (64, 64), "native"))
    streams, batch = 1, 8

    def run(self, images):
        light = images[:, :1].astype(np.float32)
        return {"logits": np.concatenate([127.5 - light, light - 127.5], 1)}

session = Brightness()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
(answer,) = pipeline.stream(session, expand([sys.argv[1]]), max_pixels=200_000_000)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
mask = answer.mask
print(after - before, mask.shape[0], mask.shape[1], int(mask.sum()))
"""


@pytest.mark.long
@pytest.mark.processes
def test_memory_is_bounded(tmp_path: Path) -> None:
    """An image of 144 million pixels takes little more than twice its own bytes; it would be 1.1 GB of logits alone at once."""
    side = 12_000
    image = np.zeros((side, side), np.uint8)
    image[1000:5000, 2000:9000] = 255
    Image.fromarray(image).save(tmp_path / "large.png", compress_level=1)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "large.png")], capture_output=True, text=True, check=True)
    taken, height, width, count = map(int, done.stdout.split())
    assert (height, width, count) == (side, side, 4000 * 7000)
    assert taken < 4 * side * side, f"{taken / side**2:.2f} bytes a pixel"
