"""The contenders of `embedding.py`: saccade, and timm's network in a loop as it is commonly written. All run in our environment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from folder_material import batch_of, calibrated, once, photographs, write_images, write_model
from folder_worker import SIZE, Answer, Contender, Setting, serve
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

BATCH, WORKERS, PART = 32, 2, 64


def rows(names: Sequence[str], vectors: Any) -> list[Answer]:
    """An answer is a vector here, without a class."""
    return [Answer(name, "", row) for name, row in zip(names, np.asarray(vectors, np.float32), strict=True)]


class Saccade(Contender):
    """`saccade.load(FILE).embed(FOLDER)`, with nothing set."""

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        import saccade

        super().__init__(material, arch, cores)
        self.model = saccade.load(material / "model.safetensors")

    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        found = self.model.embed(folder)
        return rows([Path(source).name for source in found.sources], found)


class Files(Dataset[Tensor]):
    """Images opened by Pillow, as torchvision's preset makes them ready."""

    def __init__(self, paths: Sequence[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            ready: Tensor = self.transform(image.convert("RGB"))
        return ready


class Loop(Contender):
    """`timm.create_model(ARCH, num_classes=0)` on batches that are put together one after the other."""

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        super().__init__(material, arch, cores)
        torch.set_num_threads(cores)
        self.model = timm.create_model(arch, num_classes=0).eval()
        held = load_file(material / "weights.safetensors")
        self.model.load_state_dict({name: value for name, value in held.items() if not name.startswith("fc.")})
        self.transform = torchvision.models.get_model_weights(arch).IMAGENET1K_V1.transforms(resize_size=SIZE, crop_size=SIZE)

    def batches(self, files: Files) -> Iterable[Tensor]:
        """float [B, 3, SIZE, SIZE] in the order of the files."""
        for start in range(0, len(files), BATCH):
            yield torch.stack([files[index] for index in range(start, min(start + BATCH, len(files)))])

    @torch.inference_mode()
    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        paths = sorted(folder.glob("*.jpg"))
        vectors = [self.model(batch) for batch in self.batches(Files(paths, self.transform))]
        return rows([path.name for path in paths], torch.cat(vectors))


class Loader(Loop):
    """The same with a DataLoader of two worker processes."""

    def batches(self, files: Files) -> Iterable[Tensor]:
        return DataLoader(files, BATCH, num_workers=WORKERS)


def make(work: Path, count: int, arch: str) -> None:
    """Images, weights (random ones: none are fetched) and saccade's file of them, unless they are there."""
    images, part, material = work / f"images-{count}", work / "part", work / arch
    material.mkdir(parents=True, exist_ok=True)
    sources = [] if images.exists() and part.exists() else photographs(work)
    once(images, lambda draft: write_images(draft, sources, count))
    once(part, lambda draft: write_images(draft, sources, PART))
    file = material / "weights.safetensors"
    once(file, lambda draft: save_file(calibrated(arch, batch_of(part, arch)).state_dict(), draft))
    (material / "model.safetensors").unlink(missing_ok=True)  # anew: what is measured is this version
    once(material / "model.safetensors", lambda draft: write_model(draft, arch, load_file(file)))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        serve({"saccade": Saccade, "timm loop": Loop, "timm DataLoader": Loader})
