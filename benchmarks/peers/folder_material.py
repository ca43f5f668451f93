"""What `predict_folder.py` measures with: images, one set of weights an architecture, and saccade's files of it. Runs in our environment.

    python benchmarks/peers/folder_material.py WORK IMAGES ARCH

The weights are random ones: no published ones are fetched. What stands there already is kept; each thing appears only when it is whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from folder_worker import CLASSES, MEAN, SIZE, STD
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
WIDTH, HEIGHT, QUALITY = 500, 375, 90
PART = 64  # images for warming up and for finding the fastest options
SHOWN = 32  # images with labels for the export's proof
SEED = 0
SPREAD = 3.0  # standard deviation of the logits
COMPONENTS = 8  # of the features
RESIDUAL = 0.2  # scale of the residual branches


def once(target: Path, make: Callable[[Path], object]) -> None:
    """Let `make` write to a name beside `target` and rename that, unless `target` is there."""
    if target.exists():
        return
    draft = target.with_name(f"draft-{os.getpid()}-{target.name}")
    draft.unlink(missing_ok=True) if draft.is_file() else shutil.rmtree(draft, ignore_errors=True)
    make(draft)
    draft.rename(target)


def photographs(work: Path) -> list[Path]:
    """Those of the shared data set, unpacked under `work`; none where that is absent."""
    unpack = SHARED / "unpack.py"
    if unpack.exists():
        subprocess.run([sys.executable, str(unpack), str(work), "clothing-photos"], check=True, stdout=subprocess.DEVNULL)
    return sorted((work / "clothing-photos").rglob("*.jpg"))


def write_images(folder: Path, sources: list[Path], count: int) -> None:
    """`count` different JPEGs; the second time around the sources each is cut closer, and at another place."""
    folder.mkdir(parents=True)
    for number in range(count):
        again = number // len(sources) if sources else 0
        picture = Image.open(sources[number % len(sources)]).convert("RGB") if sources else generated(number)
        if again:
            inset = 4 * again
            picture = picture.crop((inset, inset, picture.width - inset // 2, picture.height - inset // 2))
        ImageOps.fit(picture, (WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=QUALITY)


def generated(number: int) -> Image.Image:
    """A picture with coarse and fine structure, about as many bytes as a photograph."""
    draw = np.random.default_rng((SEED, number))
    layers = [(4, 90.0), (24, 40.0), (120, 20.0)]
    total = np.full((HEIGHT, WIDTH, 3), 128.0)
    for cells, strength in layers:
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3), np.uint8))
        total += (np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1) * strength
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def batch_of(folder: Path, arch: str) -> Tensor:
    """The images of a folder as torchvision's preset makes them, float [N, 3, SIZE, SIZE]."""
    preset = torchvision.models.get_model_weights(arch).IMAGENET1K_V1.transforms(resize_size=SIZE, crop_size=SIZE)
    return torch.stack([preset(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))])


@torch.no_grad()
def calibrated(arch: str, images: Tensor) -> nn.Module:
    """torchvision's network with random weights whose answers differ from image to image.

    Batch norms take the statistics of `images`; the last layer is a random projection of the features' leading principal components,
    standardised over `images`. Those, and residual branches that are held small, because a network that has learned nothing is
    chaotic: it would answer otherwise for a picture that was resized in another way.
    """
    torch.manual_seed(SEED)
    model: Any = torchvision.models.get_model(arch, weights=None, num_classes=CLASSES, zero_init_residual=True)
    head, model.fc = model.fc, nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average of what is seen
            module.weight.clamp_(min=RESIDUAL)
    model.train()(images)
    features = model.eval()(images)
    mean = features.mean(0)
    _, scales, directions = torch.linalg.svd(features - mean, full_matrices=False)
    kept = min(COMPONENTS, len(images) - 1)
    standardise = directions[:kept] / scales[:kept, None] * len(images) ** 0.5
    head.weight.copy_(SPREAD * torch.randn(CLASSES, kept) / kept**0.5 @ standardise)
    head.bias.copy_(-head.weight @ mean)
    model.fc = head
    return model


def class_names() -> tuple[str, ...]:
    """In the order of the indices."""
    return tuple(f"class {number:04}" for number in range(CLASSES))


def classifier(arch: str, weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Any], Any]:
    """saccade's module with these weights, the architecture for its card, and its input."""
    from saccade.core.card import InputSpec
    from saccade.nn import backbones
    from saccade.tasks.classification.models.classifier import Classifier

    spec = InputSpec(channels=3, size=(SIZE, SIZE), mean=MEAN, std=STD)
    network, architecture = backbones.classifier(arch, classes=CLASSES, size=(SIZE, SIZE))
    network.load_state_dict(weights)
    return Classifier(network, spec).eval(), architecture, spec


def write_model(file: Path, arch: str, weights: dict[str, Tensor]) -> None:
    """saccade's model file."""
    import saccade
    from saccade.core import modelfile
    from saccade.core.card import Card
    from saccade.nn.weights import to_buffers

    module, architecture, spec = classifier(arch, weights)
    card = Card("classify", class_names(), architecture, spec, version=saccade.__version__)
    modelfile.save(file, to_buffers(module), card)


def write_labelled(folder: Path, arch: str, weights: dict[str, Tensor], part: Path) -> None:
    """Class folders for the export's proof: some images, each labelled by what torchvision's network says of it."""
    model = torchvision.models.get_model(arch, weights=None, num_classes=CLASSES).eval()
    model.load_state_dict(weights)
    with torch.inference_mode():
        labels = model(batch_of(part, arch)[:SHOWN]).argmax(1).tolist()
    for path, label in zip(sorted(part.glob("*.jpg")), labels, strict=False):
        place = folder / "test" / class_names()[label]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def write_export(file: Path, model: Path, labelled: Path) -> None:
    """`saccade.export`, as a user calls it."""
    import saccade

    out = file.with_suffix(".out")
    shutil.rmtree(out, ignore_errors=True)
    Path(saccade.export(model, to="onnx", data=labelled, out=out).file).rename(file)


def main() -> None:
    """Make what is not there yet."""
    work, count, arch = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    images, part, material = work / f"images-{count}", work / "part", work / arch
    material.mkdir(parents=True, exist_ok=True)
    sources = [] if images.exists() and part.exists() else photographs(work)
    once(images, lambda draft: write_images(draft, sources, count))
    once(part, lambda draft: write_images(draft, sources, PART))
    file = material / "weights.safetensors"
    once(file, lambda draft: save_file(calibrated(arch, batch_of(part, arch)).state_dict(), draft))
    weights, model, labelled = load_file(file), material / "model.safetensors", material / "labelled"
    once(model, lambda draft: write_model(draft, arch, weights))
    once(labelled, lambda draft: write_labelled(draft, arch, weights, part))
    once(material / "model.onnx", lambda draft: write_export(draft, model, labelled))


if __name__ == "__main__":
    main()
