"""Lightning's side of `resume_exact.py`: Trainer(deterministic=True), everything seeded, a checkpoint an epoch and one a step.

`fit(ckpt_path=...)` is given the newest of an epoch's end, or the newest of a step. `stateful`: with torchdata's StatefulDataLoader,
which Lightning saves and restores.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from resume_worker import BATCH, CLASSES, CROP, DROPOUT, EPOCHS, SEED, SIZE, Order, begin, csv_lines, end, named
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms


class Classifier(lightning.LightningModule):
    """Three convolutions with batch norm, and dropout before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(widths[-1], CLASSES))

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        scores = self.net(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("val_accuracy", (scores.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loaders(order: Order) -> tuple[Any, Any]:
    """For training and for validation."""
    plain = transforms.Compose([transforms.Resize(SIZE), transforms.ToTensor()])
    random = transforms.Compose(
        [transforms.RandomResizedCrop(SIZE, scale=(CROP, 1.0)), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    kind: Any = DataLoader
    if order.stateful:  # imported here alone, as the import changes torch's own samplers
        from torchdata.stateful_dataloader import StatefulDataLoader

        kind = StatefulDataLoader
    train = torchvision.datasets.ImageFolder(str(Path(order.data, "train")), random)
    val = torchvision.datasets.ImageFolder(str(Path(order.data, "val")), plain)
    return kind(train, BATCH, shuffle=True, num_workers=order.workers), DataLoader(val, BATCH, num_workers=order.workers)


def fit(order: Order) -> None:
    """Train to the end and hand back what there is."""
    lightning.seed_everything(SEED, workers=True)
    train, val = loaders(order)
    by_epoch = ModelCheckpoint(order.folder / "epochs", save_last=True, every_n_epochs=1)
    by_step = ModelCheckpoint(order.folder / "steps", save_last=True, every_n_train_steps=1)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=1,
        deterministic=True,
        callbacks=[by_epoch, by_step, EMAWeightAveraging(decay=0.9)],
        logger=CSVLogger(order.folder / "log", name="", flush_logs_every_n_steps=1),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    saved = {"": None, "epoch": order.folder / "epochs" / "last.ckpt", "step": order.folder / "steps" / "last.ckpt"}[order.resume]
    # Ours to trust: our own module's checkpoint.
    trainer.fit(Classifier(), train, val, ckpt_path=saved, weights_only=False)
    held = torch.load(order.folder / "epochs" / "last.ckpt", map_location="cpu", weights_only=False)
    weights = {**named("average", held["state_dict"]), **named("model", held["current_model_state"])}
    logs = sorted((order.folder / "log").glob("version_*/metrics.csv"))
    end(order, weights, csv_lines(logs, keys=("epoch", "step")))


if __name__ == "__main__":
    fit(begin())
