"""The peers of `predict_folder.py`, each twice: with the options that are fastest on a processor, and as it is commonly written.

Runs in the peers' own environment, never in ours: Ultralytics is under the AGPL. Which value of an option is fastest was found on two
cores by `predict_folder.py --tune`; it stands first in its list.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
import torchvision
from folder_worker import CLASSES, MEAN, SIZE, STD, Answer, Contender, Setting, answers, serve
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_dataset, create_loader, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image


def strides(module: nn.Module, setting: Setting) -> torch.memory_format:
    """Give the module the memory format that the setting asks for."""
    wanted = torch.channels_last if setting["channels_last"] else torch.contiguous_format
    module.to(memory_format=wanted)
    return wanted


class Ultralytics(Contender):
    """`YOLO(...).predict(FOLDER, stream=True)` with torchvision's network as its `TorchVision` module.

    Its classification transform scales to 0..1 only, so the normalisation is a batch norm in front. On a processor it takes all cores
    but one for itself when it sets up its predictor; it gets all of them here, which is faster.
    """

    options: ClassVar[dict[str, list[Any]]] = {"batch": [8, 1, 16, 32], "channels_last": [False, True]}
    all_cores = True

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        super().__init__(material, arch, cores)
        os.environ |= {"YOLO_CONFIG_DIR": str(material), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
        from ultralytics import YOLO, settings

        settings.update({"sync": False})
        layers = [[-1, 1, "nn.BatchNorm2d", []], [-1, 1, "TorchVision", [CLASSES, arch, None, False]]]
        description = material / f"{arch}-cls.yaml"  # JSON is YAML
        description.write_text(json.dumps({"nc": CLASSES, "backbone": layers, "head": [[-1, 1, "nn.Softmax", [1]]]}))
        self.yolo = YOLO(str(description), task="classify")
        network = self.yolo.model.model
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        scale = {"running_mean": mean, "running_var": std**2 - network[0].eps, "weight": torch.ones(3), "bias": torch.zeros(3)}
        network[0].load_state_dict(scale, strict=False)
        network[1].m.load_state_dict(load_file(material / "weights.safetensors"))
        self.yolo.predict(Image.new("RGB", (500, 375)), imgsz=SIZE, device="cpu", save=False, verbose=False)
        self.threads = cores if self.all_cores else torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def ready(self, folder: Path, setting: Setting) -> None:
        strides(self.yolo.model, setting)

    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        results = self.yolo.predict(str(folder), imgsz=SIZE, device="cpu", batch=setting["batch"], stream=True, save=False, verbose=False)
        found = [Answer(Path(result.path).name, result.probs.top1, result.probs.data.numpy()) for result in results]
        if torch.get_num_threads() != self.threads:
            raise RuntimeError("Ultralytics has changed the number of threads")
        return found


class Timm(Contender):
    """timm's model, data set, loader and data configuration, as its inference script puts them together."""

    options: ClassVar[dict[str, list[Any]]] = {
        "channels_last": [True, False],
        "workers": [0, 1, 2],
        "batch": [8, 16, 32],
        "prefetcher": [True, False],
    }

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        super().__init__(material, arch, cores)
        torch.set_num_threads(cores)
        self.model = timm.create_model(arch, num_classes=CLASSES).eval()
        self.model.load_state_dict(load_file(material / "weights.safetensors"))
        asked = {"input_size": (3, SIZE, SIZE), "interpolation": "bilinear", "crop_pct": 1.0}
        self.config = resolve_data_config(asked, model=self.model)
        if (self.config["mean"], self.config["std"]) != (MEAN, STD):
            raise RuntimeError(f"timm normalises otherwise: {self.config}")

    def ready(self, folder: Path, setting: Setting) -> None:
        self.format = strides(self.model, setting)

    @torch.inference_mode()
    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        dataset = create_dataset("", root=str(folder))
        loader = create_loader(
            dataset,
            batch_size=setting["batch"],
            num_workers=setting["workers"],
            use_prefetcher=setting["prefetcher"],
            persistent_workers=False,
            device=torch.device("cpu"),
            **self.config,
        )
        rows = [self.model(images.contiguous(memory_format=self.format)).softmax(1) for images, _ in loader]
        return answers([Path(name).name for name in dataset.filenames()], torch.cat(rows).numpy())


class Files(Dataset[Tensor]):
    """The images of a folder, decoded by torchvision or Pillow and transformed."""

    def __init__(self, paths: Sequence[Path], transform: Any, decoder: str) -> None:
        self.paths, self.transform, self.decoder = paths, transform, decoder

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        image = decode_image(str(path), ImageReadMode.RGB) if self.decoder == "torchvision" else Image.open(path).convert("RGB")
        transformed: Tensor = self.transform(image)
        return transformed


class TorchVision(Contender):
    """torchvision's model and the transform of its weights, with a DataLoader."""

    options: ClassVar[dict[str, list[Any]]] = {
        "decoder": ["torchvision", "pillow"],
        "channels_last": [True, False],
        "workers": [0, 1, 2],
        "batch": [8, 16, 32],
    }

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        super().__init__(material, arch, cores)
        torch.set_num_threads(cores)
        self.model = torchvision.models.get_model(arch, weights=None).eval()
        self.model.load_state_dict(load_file(material / "weights.safetensors"))
        self.transform = torchvision.models.get_model_weights(arch).IMAGENET1K_V1.transforms(resize_size=SIZE, crop_size=SIZE)

    def ready(self, folder: Path, setting: Setting) -> None:
        self.format = strides(self.model, setting)

    @torch.inference_mode()
    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        paths = sorted(folder.glob("*.jpg"))
        loader = DataLoader(Files(paths, self.transform, setting["decoder"]), setting["batch"], num_workers=setting["workers"])
        rows = [self.model(images.contiguous(memory_format=self.format)).softmax(1) for images in loader]
        return answers([path.name for path in paths], torch.cat(rows).numpy())


class PlainUltralytics(Ultralytics):
    """Image by image, with the threads that it takes by itself: what `predict` does where nothing is set."""

    options: ClassVar[dict[str, list[Any]]] = {"batch": [1], "channels_last": [False]}
    all_cores = False


class PlainTimm(Timm):
    """The loop with a DataLoader of two workers, batches of 32 and the model as it was created."""

    options: ClassVar[dict[str, list[Any]]] = {"channels_last": [False], "workers": [2], "batch": [32], "prefetcher": [True]}


class PlainTorchVision(TorchVision):
    """The same, with Pillow, as in torchvision's own examples."""

    options: ClassVar[dict[str, list[Any]]] = {"decoder": ["pillow"], "channels_last": [False], "workers": [2], "batch": [32]}


if __name__ == "__main__":
    tuned = {"ultralytics": Ultralytics, "timm loop": Timm, "torchvision loop": TorchVision}
    plain = {"ultralytics, plain": PlainUltralytics, "timm loop, plain": PlainTimm, "torchvision loop, plain": PlainTorchVision}
    serve({**tuned, **plain})
