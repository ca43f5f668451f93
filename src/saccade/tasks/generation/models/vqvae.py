"""The vector-quantised autoencoder (van den Oord et al. 2017) with a small autoregressive prior over its codes, so that it samples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from saccade.tasks.generation.models.base import Likely, to_float
from saccade.tasks.generation.models.blocks import Downward, Upward, cut, embedding, fitted, grid, leaky, padded
from saccade.tasks.generation.models.vae import Distribution, Pixels

CODE = 32  # numbers of a code
DECAY = 0.99
DEAD = 0.05  # a code used less often than this share of its fair part is put elsewhere
COMMITMENT = 0.25


class Codebook(nn.Module):
    """`codes` vectors of `width` numbers (`weight`) that follow the encoder's outputs by moving averages (van den Oord et al. 2017,
    appendix A.1); codes that nobody uses are put where outputs are (Dhariwal et al. 2020, "Jukebox", section 3.1). All of it is state in
    buffers."""

    weight: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        weight = torch.randn(codes, width) if torch.empty(0).device.type != "meta" else torch.empty(codes, width)
        self.register_buffer("weight", weight)
        self.register_buffer("sums", weight.clone())
        self.register_buffer("counts", torch.ones(codes))

    def forward(self, index: Tensor) -> Tensor:
        """int64 `[...]` -> the vectors `[..., width]`."""
        return self.weight[index]

    def nearest(self, x: Tensor) -> Tensor:
        """`[M, width]` -> the index of the nearest code of each, int64 `[M]`."""
        return (self.weight.square().sum(1) - 2 * x @ self.weight.T).argmin(1)

    @torch.no_grad()
    def follow(self, x: Tensor, index: Tensor) -> None:
        """Move the codes towards the outputs `x` `[M, width]` that chose them. Several processes move them alike."""
        codes = len(self.weight)
        counts = torch.zeros_like(self.counts).index_add_(0, index, torch.ones_like(x[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, index, x)
        # torch's generator is seeded by the image's position before each forward pass.
        others = x[torch.randint(len(x), (codes,), device=x.device)].contiguous()
        if distributed.is_available() and distributed.is_initialized():
            for value in (counts, sums):
                distributed.all_reduce(value)
            distributed.broadcast(others, 0)
        self.counts.lerp_(counts, 1 - DECAY)
        self.sums.lerp_(sums, 1 - DECAY)
        dead = self.counts < DEAD * self.counts.sum() / codes
        fresh = self.counts.mean()
        self.counts.copy_(torch.where(dead, fresh, self.counts))
        self.sums.copy_(torch.where(dead[:, None], others * fresh, self.sums))
        self.weight.copy_(self.sums / self.counts[:, None])


class _Masked(nn.Conv2d):
    """A convolution that sees only what comes before in reading order (van den Oord et al. 2016, "Pixel recurrent neural networks");
    `itself`: and the place at hand."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, itself: bool) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        mask[kernel // 2, kernel // 2 + itself :] = 0
        mask[kernel // 2 + 1 :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class Prior(nn.Module):
    """Codes int64 `[B, h, w]`, labels -> logits of each `[B, codes, h, w]`, given those before it in reading order."""

    def __init__(self, codes: int, classes: int, size: tuple[int, int], width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.table = embedding(codes, width)
        self.classes = embedding(classes, width) if classes else None
        self.place = nn.Parameter(torch.zeros(width, *size))
        self.first = _Masked(width, width, 5, itself=False)
        self.mixes = nn.ModuleList(_Masked(width, width, 3, itself=True) for _ in range(layers))
        self.widens = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(layers))
        self.last = nn.Conv2d(width, codes, 1)

    def begin(self, count: int) -> list[Tensor]:
        """What each layer has seen of `count` grids that are made code by code: nothing yet. With a border, so that no place is special."""
        height, width = self.place.shape[1:]
        layers = [self.first, *self.mixes]
        return [self.place.new_zeros(count, len(self.place), height + edge, width + edge) for edge in (_edge(layer) for layer in layers)]

    def tell(self, seen: list[Tensor], row: int, column: int, codes: Tensor) -> None:
        """Take up the codes `[N]` of a place."""
        edge = _edge(self.first) // 2
        seen[0][:, :, row + edge, column + edge] = self.table(codes)

    def at(self, seen: list[Tensor], row: int, column: int, labels: Tensor | None) -> Tensor:
        """Logits `[N, codes]` of a place, all before it being told: as `forward` at that place, for a small part of the work."""
        x = _there(self.first, seen[0], row, column) + self.place[:, row, column, None, None]
        if self.classes is not None:
            x = x + self.classes(labels)[:, :, None, None]
        for mix, widen, kept in zip(self.mixes, self.widens, seen[1:], strict=True):
            edge = _edge(mix) // 2
            kept[:, :, row + edge, column + edge] = leaky(x)[:, :, 0, 0]
            x = x + widen(leaky(_there(mix, kept, row, column)))
        logits: Tensor = self.last(leaky(x))[:, :, 0, 0]
        return logits

    def forward(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """See the class."""
        x = self.first(self.table(codes).permute(0, 3, 1, 2)) + self.place
        if self.classes is not None:
            x = x + self.classes(labels)[:, :, None, None]
        for mix, widen in zip(self.mixes, self.widens, strict=True):
            x = x + widen(leaky(mix(leaky(x))))
        logits: Tensor = self.last(leaky(x))
        return logits


def _edge(layer: Any) -> int:
    """Rows that a kernel reaches over the grid, above and below together."""
    return int(layer.kernel_size[0]) - 1


def _there(layer: Any, seen: Tensor, row: int, column: int) -> Tensor:
    """A masked convolution's output at one place of what it has seen: `[N, C, 1, 1]`."""
    size = _edge(layer) + 1
    found: Tensor = F.conv2d(seen[:, :, row : row + size, column : column + size], layer.weight * layer.mask, layer.bias)
    return found


class Quantised(Likely):
    """An autoencoder whose latents are codes on a grid, and the prior that they are drawn by. One latent number a code: its place in
    the distribution that the prior gives, which is how normal latents become codes."""

    tempered = True
    pixels: Distribution

    def __init__(self, shape: tuple[int, int, int], classes: int, grid: tuple[int, int], codes: int) -> None:
        super().__init__(shape, math.prod(grid), classes)
        self.grid = grid
        self.prior = Prior(codes, classes, grid)

    @property
    @abstractmethod
    def codebook(self) -> Codebook:
        """The vectors of the codes."""

    @abstractmethod
    def autoencoder(self) -> Sequence[nn.Module]:
        """All that learns but for the prior and the codebook."""

    @abstractmethod
    def outputs(self, images: Tensor) -> Tensor:
        """uint8 `[B, C, H, W]` -> what is quantised, float32 `[B, h, w, width]`."""

    @abstractmethod
    def decode(self, vectors: Tensor) -> Tensor:
        """Quantised `[B, h, w, width]` -> the parameters of each pixel's distribution."""

    def codes(self, images: Tensor) -> Tensor:
        """uint8 `[B, C, H, W]` -> int64 `[B, h, w]`."""
        outputs = self.outputs(images)
        return self.codebook.nearest(outputs.flatten(0, 2)).view(outputs.shape[:3])

    def terms(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(log p of the pixels `[B]`, commitment `[B]`, the expected images float `[B, C, H, W]`, codes `[B, h, w]`); gradients pass
        straight through the quantisation. In training mode the codebook follows."""
        outputs = self.outputs(images)
        flat = outputs.flatten(0, 2)
        index = self.codebook.nearest(flat)
        vectors = self.codebook(index).view_as(outputs)
        if self.training:
            self.codebook.follow(flat.detach(), index)
        commitment = (outputs - vectors).square().flatten(1).sum(1)
        raw = self.decode(outputs + (vectors - outputs).detach())
        return self.pixels.nats(images, raw), commitment, self.pixels.mean(raw), index.view(outputs.shape[:3])

    def prior_nats(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """log p of codes `[B, h, w]` under the prior: `[B]`."""
        return -F.cross_entropy(self.prior(codes, labels).float(), codes, reduction="none").flatten(1).sum(1)

    def bound(self, images: Tensor, labels: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See `Likely`: log p(x | codes) + log p(codes), as the encoder is certain of its codes."""
        codes = self.codes(images)
        raw = self.decode(self.codebook(codes))
        return self.pixels.nats(images, raw) + self.prior_nats(codes, labels), self.pixels.mean(raw)

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Likely`: the middle of each code's stretch of the prior's distribution, as a normal number, and hardly any variance."""
        codes = self.codes(images)
        shares = self.prior(codes, labels).float().softmax(1)
        at = codes[:, None]
        middle = shares.cumsum(1).gather(1, at) - shares.gather(1, at) / 2
        latents = torch.special.ndtri(middle.double().clamp(1e-9, 1 - 1e-9)).float().flatten(1)
        return latents, torch.full_like(latents, -30.0)

    def make(self, latents: Tensor, labels: Tensor | None, truncation: float = 1.0) -> Tensor:
        """See `Maker`: code by code, in reading order; `truncation` is the prior's temperature."""
        labels = self.labelled(latents, labels)
        places = torch.special.ndtr(latents.double()).view(-1, *self.grid)
        codes = torch.zeros(places.shape, dtype=torch.int64, device=latents.device)
        seen = self.prior.begin(len(latents))
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                logits = self.prior.at(seen, row, column, labels).double() / max(truncation, 1e-3)
                found = torch.searchsorted(logits.softmax(1).cumsum(1), places[:, row, column, None].contiguous())
                codes[:, row, column] = found[:, 0].clamp(max=logits.shape[1] - 1)
                self.prior.tell(seen, row, column, codes[:, row, column])
        return self.pixels.mean(self.decode(self.codebook(codes)))


class VqVae(Quantised):
    """widths: from the grid of codes to pixels, so their number says how much smaller the grid is."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        widths: Sequence[int],
        blocks: int,
        likelihood: str,
        codes: int,  # the seventh
    ) -> None:
        super().__init__(shape, classes, grid(shape[1:], len(widths)), codes)
        self.fitted = fitted(self.size, len(widths))
        self.pixels = Pixels(likelihood, shape[0])
        self.downward = Downward(shape[0], widths[::-1], blocks)
        self.into = nn.Conv2d(widths[0], CODE, 1)
        self.book = Codebook(codes, CODE)
        self.out_of = nn.Conv2d(CODE, widths[0], 1)
        self.upward = Upward(widths, blocks, self.pixels.outputs)

    @property
    def codebook(self) -> Codebook:
        """See `Quantised`."""
        return self.book

    def autoencoder(self) -> Sequence[nn.Module]:
        """See `Quantised`."""
        return [self.downward, self.into, self.out_of, self.upward]

    def outputs(self, images: Tensor) -> Tensor:
        """See `Quantised`."""
        return self.into(leaky(self.downward(padded(to_float(images), self.fitted)))).float().permute(0, 2, 3, 1)

    def decode(self, vectors: Tensor) -> Tensor:
        """See `Quantised`."""
        return cut(self.upward(self.out_of(vectors.permute(0, 3, 1, 2))), self.size)
