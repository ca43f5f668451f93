"""A plain DCGAN (Radford et al. 2016) as it is commonly written: `python dcgan.py IMAGES.npy OUT.npy MINUTES THREADS [SEED]`.

IMAGES: uint8 [N, 32, 32]. Trains for MINUTES from when torch is loaded, then writes 10,000 images uint8 [10000, 32, 32].
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn

BEGUN = time.monotonic()
images, out, minutes, threads = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
torch.manual_seed(int(sys.argv[5]) if len(sys.argv) > 5 else 0)
LATENT, WIDTH, BATCH = 100, 64, 128

data = torch.from_numpy(np.load(images))[:, None]
generator = nn.Sequential(
    nn.ConvTranspose2d(LATENT, WIDTH * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(WIDTH * 4), nn.ReLU(True),
    nn.ConvTranspose2d(WIDTH * 4, WIDTH * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH * 2), nn.ReLU(True),
    nn.ConvTranspose2d(WIDTH * 2, WIDTH, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(True),
    nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1, bias=False), nn.Tanh(),
)  # fmt: skip
judge = nn.Sequential(
    nn.Conv2d(1, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True),
    nn.Conv2d(WIDTH, WIDTH * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH * 2), nn.LeakyReLU(0.2, True),
    nn.Conv2d(WIDTH * 2, WIDTH * 4, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH * 4), nn.LeakyReLU(0.2, True),
    nn.Conv2d(WIDTH * 4, 1, 4, 1, 0, bias=False), nn.Flatten(0),
)  # fmt: skip


def start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


for network in (generator, judge):
    network.apply(start).to(memory_format=torch.channels_last)
optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for network in (generator, judge)]
loss = nn.BCEWithLogitsLoss()
ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
steps = 0
while time.monotonic() - BEGUN < minutes * 60 - 5:
    for rows in torch.randperm(len(data)).split(BATCH)[:-1]:
        real = (data[rows].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        fake = generator(torch.randn(BATCH, LATENT, 1, 1))
        optimizers[1].zero_grad()
        (loss(judge(real), ones) + loss(judge(fake.detach()), zeros)).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        loss(judge(fake), ones).backward()
        optimizers[0].step()
        steps += 1
        if time.monotonic() - BEGUN >= minutes * 60 - 5:
            break
generator.eval()
with torch.no_grad():
    made = torch.cat([generator(torch.randn(500, LATENT, 1, 1)) for _ in range(20)])
np.save(out, ((made[:, 0] + 1) * 127.5).round().clamp(0, 255).byte().numpy())
print(json.dumps({"steps": steps, "epochs": steps * BATCH / len(data), "seconds": time.monotonic() - BEGUN}))
