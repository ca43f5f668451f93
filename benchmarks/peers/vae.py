"""A plain VAE in sixty lines: `python vae.py TRAIN.npy TEST.npy MINUTES THREADS [SEED]` prints its bits per dimension on TEST.

The network of PyTorch's own example (fully connected, 400 hidden, here 32 latents) with a discretised logistic likelihood of each pixel,
Adam at 1e-3. Images: uint8 [N, 32, 32]. It has no validation: the last weights count.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BEGUN = time.monotonic()
train, test, minutes, threads = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
torch.manual_seed(int(sys.argv[5]) if len(sys.argv) > 5 else 0)
HIDDEN, LATENT, BATCH, PIXELS = 400, 32, 128, 32 * 32


def load(path):
    return torch.from_numpy(np.load(path)).flatten(1)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * PIXELS))

    def nats(self, pixels):
        """The evidence lower bound of uint8 [B, PIXELS]: [B]."""
        x = pixels.float() / 127.5 - 1
        mean, variance = self.encoder(x).chunk(2, 1)
        latents = mean + (variance / 2).exp() * torch.randn_like(mean)
        centre, scale = self.decoder(latents).chunk(2, 1)
        inverse = torch.exp(-scale.clamp(-7, 7))
        high, low = (x - centre + 1 / 255) * inverse, (x - centre - 1 / 255) * inverse
        whole = F.logsigmoid(high) + F.logsigmoid(-low) + torch.log(-torch.expm1(-2 / 255 * inverse))
        bins = torch.where(pixels == 0, F.logsigmoid(high), torch.where(pixels == 255, F.logsigmoid(-low), whole))
        divergence = 0.5 * (mean.square() + variance.exp() - 1 - variance).sum(1)
        return bins.sum(1) - divergence


images, model = load(train), Vae()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
steps = 0
while time.monotonic() - BEGUN < minutes * 60 - 5:
    for rows in torch.randperm(len(images)).split(BATCH):
        optimizer.zero_grad()
        (-model.nats(images[rows]).mean() / PIXELS).backward()
        optimizer.step()
        steps += 1
        if time.monotonic() - BEGUN >= minutes * 60 - 5:
            break
with torch.no_grad():
    nats = torch.cat([model.nats(part) for part in load(test).split(500)])
bits = -nats.double() / PIXELS / np.log(2)
facts = {"bits_per_dim": float(bits.mean()), "error": float(bits.std() / len(bits) ** 0.5), "steps": steps}
print(json.dumps({**facts, "epochs": steps * BATCH / len(images), "seconds": time.monotonic() - BEGUN}))
