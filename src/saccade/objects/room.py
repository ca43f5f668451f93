"""The doors of the rooms of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.core import finish
from saccade.core.card import Card, InputSpec
from saccade.core.config import TrainConfig
from saccade.core.errors import UserError
from saccade.core.geometry import CELL
from saccade.core.results import Detections
from saccade.data.sample import Schema
from saccade.nn.coco import SEEN
from saccade.objects import detr_rows, recipes
from saccade.objects.detr_rows import Row
from saccade.objects.metrics import ObjectsMetric
from saccade.objects.models import Own, Theirs
from saccade.objects.recipes import TaskName
from saccade.task import Augment, Budget, Losses, Metric, ModelRow, Phase, refuse_bands, refuse_changes, refuse_stuff

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from saccade.data.loader import Batch
    from saccade.task import Outputs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision and timm state them
GREY_MEAN, GREY_STD = (0.449,), (0.226,)  # their averages


class Room:
    """Objects of any number in boxes. What a room of them must say:

    name: of the task; own: the networks that are ours, by name; theirs: torchvision's; detrs: transformers'; default: the one that a
    recipe takes; changes: of images.
    """

    name: TaskName
    own: Mapping[str, Own]
    theirs: Theirs
    detrs: Mapping[str, Row] = MappingProxyType({})
    default: str
    changes: Sequence[str] = ("flip", "color", "hue", "grey", "resize", "mosaic")

    def resize(self, config: TrainConfig) -> str:
        """All of an image."""
        return "fit"

    def models(self) -> Sequence[ModelRow]:
        """Every model that has a name of its own; heads of torchvision's stand on any network: HEAD/NETWORK."""
        ours = [ModelRow(name, "saccade", own.parameters, size=(recipes.SIDE, recipes.SIDE)) for name, own in self.own.items()]
        return [*ours, *self.theirs.rows(), *detr_rows.listed(self.detrs)]

    def _known(self, name: str) -> None:
        """Raises UserError with the nearest names."""
        if name in self.detrs:
            detr_rows.check(name)
        elif name not in self.own:
            self.theirs.check(name, [row.name for row in self.models()])

    def _architecture(self, name: str, classes: int, channels: int) -> dict[str, Any]:
        """Plain JSON that rebuilds a network."""
        if name in self.detrs:
            return detr_rows.architecture(name, classes=classes, channels=channels)
        return self.own.get(name, self.theirs).architecture(name, classes=classes, channels=channels)

    def _colours(self, config: TrainConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What the model's input subtracts from values in 0..1, and then divides by, for each channel."""
        if config.model in self.detrs and self.detrs[config.model].unscaled:
            return (0.0,) * config.channels, (1.0,) * config.channels
        if config.model in SEEN and (config.pretrained or config.weights):
            mean, std = SEEN[config.model]
            return (mean, std) if config.channels == 3 else ((sum(mean) / 3,), (sum(std) / 3,))
        return (MEAN, STD) if config.channels == 3 else (GREY_MEAN, GREY_STD)

    def _losses(self, network: Any, batch: Batch, config: TrainConfig) -> Losses:
        from saccade.objects.loss import losses
        from saccade.objects.one_stage import OneStage

        # libraries have their own
        found: Losses = losses(network.raw(batch.images), batch) if isinstance(network, OneStage) else network.losses(batch)
        return found

    def recipe(self, schema: Schema, device: str, budget: Budget) -> tuple[TrainConfig, Sequence[str]]:
        """The configuration for this data, and a reason by line."""
        return recipes.choose(self.name, self.default, schema, device, budget)

    def check(self, config: TrainConfig) -> None:
        """Raise UserError, naming the nearest, for a model that is not known, and for what no detector does."""
        self._known(config.model)
        refuse_changes(config.augment, self.changes, self.name)
        refuse_bands(config.channels, (1, 3), self.name)
        if config.pretrained and config.model in self.own:
            raise UserError(f"{config.model} has no published weights", where="--pretrained", fix="leave it out")
        if config.pretrained and "/" in config.model:
            fix = f"leave it out, or take one of {', '.join(self.theirs.named)}"
            raise UserError(f"no weights are published for {config.model}", where="--pretrained", fix=fix)
        if config.pretrained and config.model in self.detrs:
            detr_rows.check_license(config.model, self.detrs[config.model], config.license)
        if config.label_smoothing:
            raise UserError(f"is for classify: the goals of {self.name} are soft already", where="label_smoothing", fix="leave it out")

    def create(self, config: TrainConfig, schema: Schema) -> tuple[nn.Module, Card]:
        """A new network by its name, and the card that rebuilds it; raises UserError for another stuff than the data have."""
        self._known(config.model)
        refuse_stuff(config, schema.stuff)
        spec = InputSpec(config.channels, config.size, self.resize(config), *self._colours(config))
        architecture = self._architecture(config.model, len(schema.classes), config.channels)
        card = Card(self.name, schema.classes, architecture, spec, ids=schema.ids, stuff=schema.stuff)
        card = finish.by_way(card, config.objects.nms) if config.objects.nms else card
        network: Any = self.build(card)
        if config.pretrained and config.model in self.theirs.named:
            from saccade.objects import library

            card = replace(card, licenses=(library.start_from_published(network, card),))
        elif config.pretrained and config.model in self.detrs:
            from saccade.objects import detr

            card = replace(card, licenses=(detr.start_from_published(network, config.model, self.detrs[config.model]),))
        return network, card

    def build(self, card: Card, elements: int | None = None) -> nn.Module:
        """The module that a card describes, with fresh weights; refused where it would hold more than `elements` numbers."""
        if card.architecture.get("source") == "torchvision":
            from saccade.objects import library

            return library.rebuild(card, self.theirs, elements)
        if card.architecture.get("source") == "transformers":
            from saccade.objects import detr

            return detr.rebuild(card, self.detrs, elements)
        from saccade.objects import building

        return building.rebuild(card, elements)

    def augment(self, config: TrainConfig) -> Augment:
        """Random changes to the training images and their boxes; masks by pixels for torchvision's, whose grids may be finer than cells."""
        from saccade.objects.augmentation import ObjectsAugment

        return ObjectsAugment(config, 1 if self.theirs.have(config.model) else CELL)

    def phases(self, model: nn.Module, config: TrainConfig) -> Sequence[Phase]:
        """One phase: the whole network on classes, boxes and sides."""

        from saccade.nn.coarse import Coarse
        from saccade.objects.augmentation import halved

        coarse = Coarse(config.objects.coarse)

        def loss(batch: Batch, step: int) -> Losses:
            return self._losses(model, halved(batch) if coarse.now else batch, config)

        return [Phase("train", [model], loss, pace=coarse.pace if coarse.share else None, steady=coarse.share)]

    def decode(self, outputs: Outputs, size: tuple[int, int]) -> dict[str, Tensor]:
        """Outputs -> {"boxes", "scores", "labels"} of the best places, and of their masks "weights" and "prototypes", or "grids"."""
        from saccade.objects.decode import decode

        return decode(outputs)

    def metrics(self, card: Card) -> Metric:
        """COCO's figures, and others from the model's threshold on."""
        return ObjectsMetric(card.classes, card.metrics.get("threshold"))

    def fault(self, metrics: Mapping[str, float | None], best: Mapping[str, float | None]) -> str:
        """Nothing: a detector that learns badly does not fail for good."""
        return ""

    def features(self, model: nn.Module) -> nn.Module:
        """What gives the finest map, `[B, F, h, w]`."""
        network: Any = model
        found: nn.Module = network.finest
        return found

    def score(self, outputs: Outputs, targets: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Class indices `[B]` -> the logit of the surest place for each, `[B]`; or, of the places that tell of the class at all, of the one
        whose box overlaps that of `boxes` `[B, 4]`, in pixels of the input, most. Raises UserError where there is none, however unsure."""
        import torch
        from torchvision.ops import box_iou

        from saccade.objects.decode import NOTHING

        places = outputs[0] if isinstance(outputs, tuple) else outputs
        logits = places[..., 4:].gather(2, targets[:, None, None].expand(-1, places.shape[1], 1))[..., 0]
        if boxes is None:
            found = logits.amax(1)
        else:
            near = torch.stack([box_iou(box[None], own[:, :4])[0] for box, own in zip(boxes, places.float(), strict=True)])
            most, best = near.masked_fill(logits <= NOTHING, -1).max(1)
            if (most <= 0).any():
                raise UserError("nothing that the network tells of this class overlaps the box", where="--box")
            found = logits.gather(1, best[:, None])[:, 0]
        if (found <= NOTHING).any():
            raise UserError("nothing is found of this class, however unsure, so that there is nothing to explain", where="--class")
        return found

    def draw(self, image: NDArray[np.uint8], result: Detections, truth: Any | None = None) -> Image:
        """The image uint8 `[H, W, C]` with what was found over what is there."""
        from saccade.objects.drawing import drawn

        return drawn(image, result, truth)

    def example(self, n: int, generator: np.random.Generator) -> Batch:
        """Tiny data that can be learned."""
        from saccade.objects.example import example

        return example(n, generator)
