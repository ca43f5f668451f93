"""SegFormer (Xie et al. 2021), by name: what transformers builds. Neither torch nor transformers is imported.

Sizes are those of the paper's table 6, parameters those with 21 classes and three channels (a test holds them true), mean IoU that of
table 1 on ADE20K, at one scale. The architecture may be used by anybody: transformers' code is under the Apache License 2.0. The weights
are NVIDIA's, whose licence (github.com/NVlabs/SegFormer, LICENSE, section 3.3) allows no commercial use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saccade.core import licenses
from saccade.core.errors import UserError

LICENSE = "nvidia-source-code-noncommercial"


@dataclass(frozen=True)
class Row:
    """depths: layers of the four stages; widths: their channels; head: channels of the decoder; miou: in hundredths, on ADE20K; repository:
    of the weights, on the Hugging Face hub; side: of the squares that they learned from, in pixels."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    head: int
    parameters: int
    miou: float
    repository: str
    side: int = 512

    @property
    def settings(self) -> Mapping[str, Any]:
        """What differs from the defaults of transformers' configuration."""
        return {"depths": list(self.depths), "hidden_sizes": list(self.widths), "decoder_hidden_size": self.head}


_WIDE = (64, 128, 320, 512)
ROWS = {
    "segformer_b0": Row((2, 2, 2, 2), (32, 64, 160, 256), 256, 3_719_541, 37.4, "nvidia/segformer-b0-finetuned-ade-512-512"),
    "segformer_b1": Row((2, 2, 2, 2), _WIDE, 256, 13_682_645, 42.2, "nvidia/segformer-b1-finetuned-ade-512-512"),
    "segformer_b2": Row((3, 4, 6, 3), _WIDE, 768, 27_362_773, 46.5, "nvidia/segformer-b2-finetuned-ade-512-512"),
    "segformer_b3": Row((3, 4, 18, 3), _WIDE, 768, 47_238_613, 49.4, "nvidia/segformer-b3-finetuned-ade-512-512"),
    "segformer_b4": Row((3, 8, 27, 3), _WIDE, 768, 64_009_173, 50.3, "nvidia/segformer-b4-finetuned-ade-512-512"),
    "segformer_b5": Row((3, 6, 40, 3), _WIDE, 768, 84_609_493, 51.0, "nvidia/segformer-b5-finetuned-ade-640-640", 640),
}


def check(name: str) -> None:
    """Raise UserError where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{name} needs transformers, which is not installed", where="--model", fix="pip install 'saccade[transformers]'")


def check_license(name: str, allowed: Sequence[str]) -> None:
    """Raise UserError where published weights are asked for that their licence does not allow to everybody, and it is not among those that
    the user allows."""
    if not licenses.allowed(LICENSE, allowed):
        fix = f"where your use is allowed: --license {LICENSE}; or give other weights as --weights FILE"
        raise UserError(f"the weights of {name} are NVIDIA's, whose licence forbids commercial use", where="--pretrained", fix=fix)
