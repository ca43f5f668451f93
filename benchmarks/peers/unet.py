"""A library's Unet in a plain loop: `python unet.py DATA OUT MINUTES THREADS CLASSES [SEED]`.

DATA: images/{train,test}/NAME.png and masks/train/NAME.png of class indices. Trains on random crops of 256 pixels, mirrored half of the
time, by cross-entropy with Adam, for MINUTES from when torch is loaded; then writes the classes of each test image as OUT/NAME.npy.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image

BEGUN = time.monotonic()
data, out, minutes, threads, classes = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(threads)
torch.manual_seed(int(sys.argv[6]) if len(sys.argv) > 6 else 0)
draws = np.random.default_rng(int(sys.argv[6]) if len(sys.argv) > 6 else 0)
SIDE, BATCH = 256, 8
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def padded(pixels: np.ndarray, least: int, value: int) -> np.ndarray:
    down, across = max(0, least - pixels.shape[0]), max(0, least - pixels.shape[1])
    return np.pad(pixels, [(0, down), (0, across)] + [(0, 0)] * (pixels.ndim - 2), constant_values=value)


def normal(images: list[np.ndarray]) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return ((pixels - MEAN) / STD).contiguous(memory_format=torch.channels_last)


train = [
    (
        padded(np.asarray(Image.open(path).convert("RGB")), SIDE, 0),
        padded(np.asarray(Image.open(data / "masks" / "train" / path.name)), SIDE, 255),
    )
    for path in sorted((data / "images" / "train").glob("*.png"))
]
network = smp.Unet(encoder_weights=None, classes=classes).to(memory_format=torch.channels_last)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
loss = torch.nn.CrossEntropyLoss(ignore_index=255)
steps = 0
while time.monotonic() - BEGUN < minutes * 60 - 20:
    images, masks = [], []
    for place in draws.integers(0, len(train), BATCH):
        image, mask = train[place]
        top, left = (int(draws.integers(0, side - SIDE + 1)) for side in mask.shape)
        image, mask = image[top : top + SIDE, left : left + SIDE], mask[top : top + SIDE, left : left + SIDE]
        if draws.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        images.append(image.copy())
        masks.append(mask.copy())
    optimizer.zero_grad()
    loss(network(normal(images)), torch.from_numpy(np.stack(masks)).long()).backward()
    optimizer.step()
    steps += 1
network.eval()
for path in sorted((data / "images" / "test").glob("*.png")):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = pixels.shape[:2]
    whole = np.pad(pixels, ((0, -height % 32), (0, -width % 32), (0, 0)))
    with torch.no_grad():
        found = network(normal([whole]))[0, :, :height, :width].argmax(0)
    np.save(out / f"{path.stem}.npy", found.byte().numpy())
print(json.dumps({"steps": steps, "epochs": round(steps * BATCH / len(train), 1), "seconds": time.monotonic() - BEGUN}))
