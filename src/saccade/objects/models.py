"""What describes the networks of a room, ours and torchvision's. torch is not imported here, timm where a name must be one of its."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saccade.core.errors import unknown
from saccade.task import ModelRow

BSD, TAG = "bsd-3-clause", "COCO_V1"
LARGE = (800, 1333)  # (height, width) to which most of torchvision's fit images of COCO


@dataclass(frozen=True)
class Own:
    """A network that is ours, for any size.

    widths, blocks: channels and residual blocks of the stages at a 4th, 8th, 16th and 32nd of the input; head: width of neck and head;
    parameters: with 80 classes and three channels (a test holds them true); prototypes: of masks, 0 for boxes only.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    head: int
    parameters: int
    prototypes: int = 0

    def architecture(self, name: str, *, classes: int, channels: int) -> dict[str, Any]:
        """Plain JSON that rebuilds it."""
        arguments: dict[str, Any] = {"classes": classes, "channels": channels}
        arguments |= {"widths": list(self.widths), "blocks": list(self.blocks), "head": self.head}
        return {"source": "saccade", "name": name, "arguments": arguments | ({"prototypes": self.prototypes} if self.prototypes else {})}


@dataclass(frozen=True)
class Theirs:
    """torchvision's networks that do what a room does.

    named: parameters with 91 classes, the average precision of its weights on COCO val2017 in percent, their file, and the (height, width)
    to which images are fitted for it, as torchvision has them (tests hold them); heads: those that stand on any network of timm or
    torchvision which gives maps, as HEAD/NETWORK: "fasterrcnn/densenet121", "fcos/torchvision/shufflenet_v2_x1_0".
    """

    named: Mapping[str, tuple[int, float, str, tuple[int, int]]]
    heads: Sequence[str]

    def rows(self) -> list[ModelRow]:
        """Those that have a name of their own."""
        return [
            ModelRow(name, "torchvision", count, BSD, round(ap / 100, 3), "COCO val2017", size=size, weights=file, tag=TAG)
            for name, (count, ap, file, size) in self.named.items()
        ]

    def have(self, name: str) -> bool:
        """Whether a name is that of one of them, or of one of their heads on something."""
        head, slash, _ = name.partition("/")
        return head in self.heads if slash else name in self.named

    def check(self, name: str, known: Iterable[str]) -> None:
        """Raise UserError with the nearest, of those `known` and the heads, for a name that is none."""
        if not self.have(name):
            raise unknown("model", name, [*known, *(f"{head}/NETWORK" for head in self.heads)], where="--model")
        _, slash, network = name.partition("/")
        if not slash:
            return
        import timm

        theirs, _, rest = network.rpartition("/")
        if theirs == "torchvision":
            from torchvision import models

            if rest not in (known := models.list_models(module=models)):
                raise unknown("model", rest, known, where="--model")
        elif "." in network or not timm.is_model(network):  # a tag is a set of weights
            raise unknown("model", network, timm.list_models(), where="--model")

    def architecture(self, name: str, *, classes: int, channels: int) -> dict[str, Any]:
        """Plain JSON that rebuilds one."""
        return {"source": "torchvision", "name": name, "arguments": {"classes": classes, "channels": channels}}
