"""What describes one of our networks. Neither torch nor timm is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
