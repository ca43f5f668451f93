"""Which channels of which layers reach which others, found by running the network with marks: no operation needs a rule.

Layers that mix channels (convolutions, linear ones) are stood in for by modules that give numbers of the shape they would give, several
samples of them; those of a marked layer are NaN where its channel's number, in binary, has a 1, and in as many samples more where it has
a 0. NaN goes through activations, pools, sums, joins and reshapes, and what arrives at the next layer says which channel of the marked one
has reached each of its own, and, as no bit may be both 0 and 1, whether it is only one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from saccade.core.errors import UserError
from saccade.editing.feeding import Inputs, latents, makes, run
from saccade.nn.layers.normalize import Normalize

NONE, SEVERAL = -1, -2  # codes of a channel that the marks do not reach, and of one that several do
AT_ONCE = 16  # layers marked in one run
Codes = NDArray[np.int64]


def mixes(module: nn.Module) -> bool:
    """Whether each channel that a module gives is made of all that it takes."""
    return (isinstance(module, _ConvNd) and module.groups == 1) or isinstance(module, nn.Linear)


def depthwise(module: nn.Module) -> bool:
    """Whether a convolution makes each of its channels of one."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def by_channel(module: nn.Module) -> bool:
    """Whether a module has numbers for each channel, and treats each alone."""
    return (isinstance(module, _NormBase) and module.weight is not None) or (isinstance(module, nn.PReLU) and module.num_parameters > 1)


def _whole(module: nn.Module) -> bool:
    """Whether a module takes channels together, so that one more changes all."""
    return isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) or (isinstance(module, _ConvNd) and module.groups > 1)


def width(module: Any) -> int:
    """The channels that a layer gives."""
    if isinstance(module, Normalize):
        return int(module.scale.shape[1])
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def channel_axis(module: nn.Module) -> int:
    """Where the channels of its input and output stand."""
    return -1 if isinstance(module, nn.Linear | nn.LayerNorm | nn.RMSNorm) else 1


@dataclass(frozen=True)
class Marks:
    """Where the channels of marked layers arrive. codes: by layer (those by channel too), for each channel that it takes, the channel that
    has reached it; whole: modules that take these channels together; output: whether the network's own output has them."""

    codes: Mapping[str, Codes]
    whole: Sequence[str]
    output: bool


@dataclass(frozen=True)
class Reach:
    """What a layer's channels arrive at, whichever of them. layers: by layer, for each channel that it takes, whether any does; whole and
    output as of Marks."""

    layers: Mapping[str, NDArray[np.bool_]]
    whole: Sequence[str]
    output: bool


@dataclass
class _Pass:
    """One run with marks: in which samples each channel of a source is NaN, bool `[samples, channels]`, and what was met."""

    samples: int
    marked: Mapping[str, Tensor]
    arrived: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)
    whole: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)


class Trace:
    """A network that has run once on `inputs`, each `[1, ...]`; its layers may be resized afterwards, and marked again.

    shapes: by module that was met, the outputs of each call; order: layers in the order in which they ran. Raises UserError where the
    network does not run.
    """

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        self.network, self.inputs = network, inputs
        self.shapes: dict[str, list[torch.Size]] = {}
        self._met = {
            name: part
            for name, part in network.named_modules()
            if mixes(part) or depthwise(part) or by_channel(part) or _whole(part) or isinstance(part, Normalize)
        }
        handles = [part.register_forward_hook(self._note(name)) for name, part in self._met.items()]
        try:
            run(network, inputs)
        finally:
            for handle in handles:
                handle.remove()
        self.order = [name for name in self.shapes if mixes(self._met[name])]
        self.unmet = [name for name, part in self._met.items() if mixes(part) and name not in self.shapes]

    def _note(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.shapes.setdefault(name, []).append(output.shape)

        return note

    def marks(self, sources: Collection[str], channels: int) -> Marks:
        """Run with all `sources` giving so many channels, marked alike; leaves the network as it is."""
        numbers = torch.arange(channels)
        ones = torch.stack([(numbers >> bit) & 1 == 1 for bit in range(max(1, (channels - 1).bit_length()))])
        run = _Pass(2 * len(ones), dict.fromkeys(sources, torch.cat([ones, ~ones])))
        reached = self._run(run)
        codes = {name: _joined([_decoded(one) for one in calls]) for name, calls in run.arrived.items()}
        return Marks(codes, tuple(name for name, samples in run.whole.items() if samples.any()), bool(reached.any()))

    def reach(self) -> dict[str, Reach]:
        """What each layer's channels arrive at; each is marked in a sample of its own."""
        found: dict[str, Reach] = {}
        names = [*self.order, *(name for name, part in self._met.items() if isinstance(part, Normalize) and name in self.shapes)]
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            marked = {name: torch.zeros(len(some), width(self._met[name]), dtype=torch.bool) for name in some}
            for sample, name in enumerate(some):
                marked[name][sample] = True
            run = _Pass(len(some), marked)
            reached = self._run(run)
            for sample, name in enumerate(some):
                rows = {layer: _any([_fitting(call, calls[0])[sample] for call in calls]) for layer, calls in run.arrived.items()}
                whole = tuple(layer for layer, samples in run.whole.items() if samples[sample])
                found[name] = Reach({layer: row for layer, row in rows.items() if row.any()}, whole, bool(reached[sample]))
        return found

    def _run(self, marking: _Pass) -> NDArray[np.bool_]:
        """In which samples marks reach the output."""
        try:
            with self._stood_in(marking):
                outputs = run(self.network, [one.repeat(marking.samples, *[1] * (one.ndim - 1)) for one in self.inputs])
        except Exception as error:  # of a network that computes with what it has found: boxes, indices
            what = f"{type(error).__name__}: {str(error)[:100]}"
            fix = "edits that resize no channels go, such as replace, insert-after and freeze"
            raise UserError(f"what reaches what cannot be seen in this network: {what}", fix=fix) from None
        reached = np.zeros(marking.samples, bool)
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel():
                reached |= _samples(leaf, marking.samples)
        return reached

    @contextmanager
    def _stood_in(self, run: _Pass) -> Iterator[None]:
        met = [(name, part) for name, part in self._met.items() if name in self.shapes]
        for name, part in met:
            part.forward = self._stand_in(name, part, run)
        try:
            yield
        finally:
            for _, part in met:
                del part.forward

    def _stand_in(self, name: str, part: nn.Module, run: _Pass) -> Callable[..., Tensor]:
        def forward(x: Tensor, *others: Any) -> Tensor:
            if isinstance(part, Normalize):
                return self._given(name, part, run)
            if _whole(part) and not depthwise(part):
                run.whole[name] = run.whole.get(name, np.zeros(run.samples, bool)) | _samples(x, run.samples)
                return self._given(name, part, run)
            run.arrived.setdefault(name, []).append(_arrived(x, channel_axis(part), run.samples))
            if mixes(part):
                return self._given(name, part, run)
            return self._passed(name, x, run) if depthwise(part) else x.clone()

        return forward

    def _shape(self, name: str, run: _Pass) -> list[int]:
        """Of the output of the call in progress."""
        call = run.calls[name] = run.calls.get(name, -1) + 1
        shape = self.shapes[name][call]
        return [shape[0] * run.samples, *shape[1:]]

    def _given(self, name: str, part: nn.Module, run: _Pass) -> Tensor:
        """Numbers in place of a layer's output, marked where it is a source."""
        shape = self._shape(name, run)
        axis = channel_axis(part)
        marked = run.marked.get(name)
        if marked is not None:
            shape[axis] = marked.shape[1]
        elif mixes(part) or isinstance(part, Normalize):
            shape[axis] = width(part)
        output = torch.full(shape, 0.5)
        if marked is not None:
            rows = marked.repeat_interleave(shape[0] // run.samples, 0)  # [samples * k, C]
            output.movedim(axis, -1).masked_fill_(rows.reshape(shape[0], *[1] * (output.ndim - 2), -1), torch.nan)
        return output

    def _passed(self, name: str, x: Tensor, run: _Pass) -> Tensor:
        """What a convolution of single channels gives: marked where a channel is."""
        shape = self._shape(name, run)
        shape[1] = x.shape[1]
        marked = x.isnan().flatten(2).any(2)
        return torch.full(shape, 0.5).masked_fill_(marked.reshape(*marked.shape, *[1] * (x.ndim - 2)), torch.nan)


def _arrived(x: Tensor, axis: int, samples: int) -> NDArray[np.bool_]:
    """In which of the samples that the first axis of `x` holds in turn a mark has arrived, by channel: bool `[samples, C]`."""
    nan = x.isnan().movedim(axis, -1)
    if nan.shape[0] % samples:  # not by image any more: all that is marked at all is marked in every sample
        return np.repeat(np.asarray(nan.flatten(0, -2).any(0))[None], samples, 0)
    return np.asarray(nan.reshape(samples, -1, nan.shape[-1]).any(1))


def _samples(x: Tensor, samples: int) -> NDArray[np.bool_]:
    """In which samples of `x` any mark has arrived."""
    rows = x.flatten()[:, None] if x.shape[0] % samples else x.reshape(x.shape[0], -1)
    found: NDArray[np.bool_] = np.asarray(_arrived(rows, 1, samples).any(1))
    return found


def _any(rows: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.asarray(np.logical_or.reduce(rows))


def _decoded(marked: NDArray[np.bool_]) -> Codes:
    """The code of each channel of `[samples, C]`."""
    half = len(marked) // 2
    ones, zeros = marked[:half], marked[half:]
    numbers = (ones * (1 << np.arange(half))[:, None]).sum(0)
    return np.where(marked.any(0), np.where((ones ^ zeros).all(0), numbers, SEVERAL), NONE).astype(np.int64)


def _fitting(call: NDArray[np.bool_], first: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A call of a module as the first one, whose channels may have been others: then all count."""
    return call if call.shape == first.shape else np.repeat(np.asarray(call.any(1))[:, None], first.shape[1], 1)


def _joined(calls: Sequence[Codes]) -> Codes:
    """The codes of a module that may run more than once."""
    found = calls[0]
    for other in calls[1:]:
        if len(found) != len(other):
            return np.full(len(found), SEVERAL)
        same = np.where((found == other) | (other == NONE), found, SEVERAL)
        found = np.where(found == NONE, other, same)
    return found


def trace(network: nn.Module, channels: int, sizes: Sequence[tuple[int, int]]) -> Trace:
    """A trace at the first of the (height, width) `sizes` that the network takes, or of one that makes images; raises UserError where it
    takes none."""
    if makes(network):
        return Trace(network, latents(network, 1))
    generator = torch.Generator().manual_seed(0)
    problem: Exception | None = None
    for height, width in sizes:
        images = torch.randint(0, 256, (1, channels, height, width), generator=generator).to(torch.uint8)
        try:
            return Trace(network, [images])
        except Exception as error:  # a network of fixed size says so in its own way
            problem = error
    raise UserError(f"the network does not run, so that nothing can be known of its channels: {problem}")


def layer_types() -> tuple[type, ...]:
    """The layers with channels of their own."""
    return (_ConvNd, nn.Linear)


def transposed(module: nn.Module) -> bool:
    """Whether a layer's weight has its inputs first."""
    return isinstance(module, _ConvTransposeNd)


def is_map(stage: nn.Module, output: Tensor) -> bool:
    """Whether the channels stand on the second axis: the last layer in the stage that gives as many says so."""
    layers = [one for one in stage.modules() if isinstance(one, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)]
    sizes = {getattr(one, "out_channels", getattr(one, "num_features", 0)) for one in layers}
    return not layers or output.shape[1] in sizes or output.shape[3] not in sizes
