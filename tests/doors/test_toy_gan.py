"""A room with two phases, written here alone: a GAN on points of the plane goes through the ordinary loop and resumes to the bit."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core import keys
from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import Interrupted
from saccade.core.rundir import RunDir
from saccade.data.cache import Preparation
from saccade.data.loader import Batch, Loader, Source
from saccade.data.sample import Sample
from saccade.task import Losses, Phase
from saccade.training.budget import Resolved
from saccade.training.loop import Job, Trainer
from small_jobs import Outcome, Stopping, fit, go_on

LATENT, IMAGES, BATCH, STEPS = 4, 60, 16, 120
CONFIG = TrainConfig(task="toy", size=(1, 2), channels=1, batch=BATCH, lr=5e-3, warmup=0.0, weight_decay=0.0, ema=0.02, device="cpu")


class Gan(nn.Module):
    """Points `[B, 2]` from latents `[B, LATENT]`, and how real they look; `seen` is the state of a phase, kept in a buffer."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(LATENT, 32), nn.ReLU(), nn.Linear(32, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(32, 1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))


class PointAugment:
    """uint8 `[1, 2, 1]` -> a point of -1..1 by `[B, 2]`; the latents come from the keys of the positions."""

    preparation = Preparation("as it is", lambda pixels: pixels)

    def partners(self, position: int) -> Sequence[int]:
        return ()

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def apply(self, samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
        return samples[0]

    def collate(self, samples: Sequence[Sample], positions: Any) -> Batch:
        pixels = torch.from_numpy(np.stack([sample.image for sample in samples])).flatten(1)
        latents = [keys.generator(0, "latent", int(p)).standard_normal(LATENT, dtype=np.float32) for p in positions]
        return Batch(pixels[:, None, None], {"latent": torch.from_numpy(np.stack(latents))}, positions)


class Distance:
    """How far the generated points' mean and spread are from the real ones'; lower is better."""

    primary, higher_is_better = "distance", False


class Toy:
    """The doors that a run needs."""

    name = "toy"

    def metrics(self, card: Card) -> Distance:
        return Distance()

    def fault(self, metrics: Any, best: Any) -> str:
        return ""

    def phases(self, model: Gan, config: TrainConfig) -> Sequence[Phase]:
        def judge(batch: Batch, step: int) -> Losses:
            real = model.discriminator(points(batch))
            fake = model.discriminator(model.generator(batch.targets["latent"]).detach())
            return Losses((F.softplus(-real) + F.softplus(fake)).sum(), float(len(batch)), {"real": real.sum()})

        def forge(batch: Batch, step: int) -> Losses:
            return Losses(F.softplus(-model.discriminator(model.generator(batch.targets["latent"]))).sum(), float(len(batch)))

        def count(step: int) -> None:
            model.seen += 1

        return [Phase("judge", [model.discriminator], judge), Phase("forge", [model.generator], forge, every=2, after_step=count)]


def points(batch: Batch) -> Tensor:
    return batch.images.flatten(1).float() / 127.5 - 1


def pixels() -> list[Any]:
    """A cloud around (0.5, -0.4)."""
    cloud = keys.generator(0, "cloud", 0).normal((0.5, -0.4), (0.1, 0.2), (IMAGES, 2))
    return list(np.clip((cloud + 1) * 127.5, 0, 255).round().astype(np.uint8)[:, None, :, None])


def distance(module: Gan) -> Any:
    latents = torch.from_numpy(keys.generator(0, "look", 0).standard_normal((256, LATENT), dtype=np.float32))
    with torch.no_grad():
        made = module.generator(latents)
    real = torch.tensor([[0.5, -0.4], [0.1, 0.2]])
    return {"distance": float((torch.stack([made.mean(0), made.std(0)]) - real).norm())}


def job(path: Path, progress: Any = None, workers: int = 0) -> Job:
    torch.manual_seed(1)
    source = Source(pixels(), [None] * IMAGES, [str(i) for i in range(IMAGES)])  # type: ignore[arg-type]
    loader = Loader(source, PointAugment(), seed=CONFIG.seed, batch=BATCH, workers=workers)
    card = Card("toy", (), {"source": "toy"}, InputSpec(1, (1, 2)))
    path.mkdir(exist_ok=True)
    facts = Resolved("cpu", "fp32", torch.get_num_threads(), workers, 4, STEPS, 20)
    return Job(Toy(), Gan(), card, CONFIG, facts, loader, RunDir(path), distance, progress or Stopping())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return fit(job(tmp_path_factory.mktemp("whole")))


def test_it_learns(whole: Outcome) -> None:
    looked = [row["metrics"]["distance"] for row in whole.rows if "split" in row]
    assert len(looked) == 6
    assert whole.loop["best"] == min(looked)
    assert min(looked) < 0.5 * distance(Gan())["distance"]


def test_both_phases_are_kept_and_told(whole: Outcome) -> None:
    assert {"optimizer-judge.safetensors", "optimizer-forge.safetensors"} <= whole.files.keys()
    rows = [row for row in whole.rows if "split" not in row]
    assert all({"judge/loss", "judge/real"} <= row.keys() for row in rows)
    assert ["forge/loss" in row for row in rows] == [row["step"] % 2 == 1 for row in rows], "every second step, the first with it"


@pytest.mark.parametrize("after", [1, 20, 37])
def test_it_resumes_to_the_bit(whole: Outcome, tmp_path: Path, after: int) -> None:
    with pytest.raises(Interrupted):
        Trainer(job(tmp_path, Stopping(after, signal.SIGINT))).fit()
    assert go_on(job(tmp_path, workers=2)).differs(whole) == []


def test_the_mean_of_a_rare_phase_counts_its_own_steps(tmp_path: Path) -> None:
    trainer = Trainer(job(tmp_path))
    trainer.log_every = 4
    trainer.fit()
    rows = {row["step"]: row for row in trainer.job.run.metrics() if "split" not in row}
    assert 0.2 < rows[4]["forge/loss"] < 1.5, "softplus around 0 is 0.7; divided by all four steps it would be 0.35"
    single = fit(job(tmp_path.parent / f"{tmp_path.name}-each"))
    each = {row["step"]: row for row in single.rows if "split" not in row}
    assert rows[4]["forge/loss"] == pytest.approx((each[1]["forge/loss"] + each[3]["forge/loss"]) / 2)
