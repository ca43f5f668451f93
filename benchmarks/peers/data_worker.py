"""One way to feed training, timed: `data_worker.py WAY FOLDER SIZE EPOCHS WORKERS`; prints a JSON line {"first", "later"}: images a second.

Every way reads the same class folders of JPEGs (or PNGs), takes a random resized crop of 8 to 100 % at SIZE, mirrors half of them and gives
batches of 64, normalised float32; two cores. The first epoch counts from nothing but the imported library: listing, starting, caching.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64

Epochs = Callable[[], Iterator[int]]  # an iterator over the images of each batch, an epoch a call


def torchvision_v2(folder: str, size: int, workers: int) -> Epochs:
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    steps = [
        v2.RandomResizedCrop(size, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    data = ImageFolder(folder, v2.Compose(steps), loader=lambda path: decode_image(path, ImageReadMode.RGB))
    return _torch(data, workers)


def torchvision_pil(folder: str, size: int, workers: int) -> Epochs:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return _torch(ImageFolder(folder, transforms.Compose(steps)), workers)


def timm(folder: str, size: int, workers: int) -> Epochs:
    import torch
    from timm.data import create_dataset, create_loader

    data = create_dataset("", root=folder, split="train")
    loader = create_loader(
        data, (3, size, size), BATCH, is_training=True, num_workers=workers, hflip=0.5, color_jitter=0.0, use_prefetcher=False,
        interpolation="bilinear", device=torch.device("cpu"), persistent_workers=workers > 0, pin_memory=False,
    )  # fmt: skip
    return lambda: (len(images) for images, _ in loader)


def albumentations(folder: str, size: int, workers: int) -> Epochs:
    import albumentations as A
    import cv2
    import torch
    from torchvision.datasets import ImageFolder

    cv2.setNumThreads(0)
    steps = A.Compose([A.RandomResizedCrop(size=(size, size), interpolation=cv2.INTER_AREA), A.HorizontalFlip(), A.Normalize(MEAN, STD)])

    def load(path: str) -> Any:
        return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)

    def change(image: Any) -> Any:
        return torch.from_numpy(steps(image=image)["image"].transpose(2, 0, 1).copy())

    return _torch(ImageFolder(folder, change, loader=load), workers)


def ultralytics(folder: str, size: int, workers: int) -> Epochs:
    from types import SimpleNamespace

    from ultralytics.data.dataset import ClassificationDataset

    asked = {
        "imgsz": size,
        "fraction": 1.0,
        "scale": 0.92,
        "fliplr": 0.5,
        "flipud": 0.0,
        "cache": False,
        "auto_augment": None,
        "single_cls": False,
    }
    asked |= {"erasing": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "single_cls": False}
    data = ClassificationDataset(folder, SimpleNamespace(**asked), augment=True)
    return _torch(data, workers, lambda batch: batch["img"])


def _torch(data: Any, workers: int, images: Callable[[Any], Any] = lambda batch: batch[0]) -> Epochs:
    from torch.utils.data import DataLoader

    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=False, persistent_workers=workers > 0)
    return lambda: (len(images(batch)) for batch in loader)


def saccade(folder: str, size: int, workers: int) -> Epochs:
    import numpy as np
    import torch

    from saccade.core.config import AugmentConfig, TrainConfig
    from saccade.core.progress import Silent
    from saccade.data import cache
    from saccade.data.loader import Loader, Source
    from saccade.data.opening import open_dataset
    from saccade.tasks.classification.augmentation import ClassificationAugment

    data = open_dataset(folder)
    config = TrainConfig(
        task="classify", size=(size, size), batch=BATCH, augment=AugmentConfig(flip=0.5, crop=0.08), channels=data.schema.channels
    )
    augment = ClassificationAugment(config)
    indices = np.arange(len(data))
    store, bad = cache.load(data, indices, augment.preparation, progress=Silent(), workers=os.cpu_count() or 1)
    names = list(data.paths)
    loader = Loader(Source(store, data.targets.tolist(), names), augment, seed=0, batch=BATCH, micro_batch=BATCH, workers=workers)
    shape = (1, data.schema.channels, 1, 1)
    mean = torch.tensor(MEAN[: data.schema.channels]).mul(255).view(shape)
    std = torch.tensor(STD[: data.schema.channels]).mul(255).view(shape)
    stream = loader.stream(0)

    def epoch() -> Iterator[int]:
        left = len(data) - len(bad)
        while left > 0:
            for batch in next(stream):
                images = batch.images.float().sub_(mean).div_(std)
                left -= len(images)
                yield len(images)

    return epoch


def main() -> None:
    """Time the first epoch and the later ones."""
    way, folder, size, epochs, workers = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    import torch  # everybody's import is left out

    torch.set_num_threads(1 if workers else 2)
    for name in {"timm": ["timm.data"], "ultralytics": ["ultralytics"], "albumentations": ["albumentations"]}.get(way, ["torchvision"]):
        __import__(name)
    started = time.perf_counter()
    run = globals()[way](str(Path(folder)), size, workers)
    taken: list[float] = []
    count = 0
    for _ in range(epochs):
        count = sum(run())
        taken.append(time.perf_counter() - started)
        started = time.perf_counter()
    print(json.dumps({"first": count / taken[0], "later": count * (epochs - 1) / sum(taken[1:]) if epochs > 1 else None, "images": count}))


if __name__ == "__main__":
    main()
