"""The classifiers of transformers: `hf/OWNER/NAME` of the Hugging Face hub, or `hf/FOLDER` on this machine. Neither torch nor transformers
is imported here.

A network is what its `config.json` says, of the families that are known here. Parameters are those of transformers' own configurations,
which are of these networks, with 1000 classes and three channels (a test holds them true); licences are those of the model cards.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from saccade.core.errors import UserError

PREFIX = "hf/"
SIZE = (224, 224)  # that those in the table were made for
CONFIG = "config.json"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# By `model_type`: how the names of its classes begin. All of them give logits for images alone.
FAMILIES = {
    "beit": "Beit",
    "bit": "Bit",
    "convnext": "ConvNext",
    "convnextv2": "ConvNextV2",
    "cvt": "Cvt",
    "deit": "DeiT",
    "dinov2": "Dinov2",
    "dinov2_with_registers": "Dinov2WithRegisters",
    "efficientnet": "EfficientNet",
    "focalnet": "FocalNet",
    "hiera": "Hiera",
    "ijepa": "IJepa",
    "levit": "Levit",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViTV2",
    "poolformer": "PoolFormer",
    "pvt": "Pvt",
    "pvt_v2": "PvtV2",
    "regnet": "RegNet",
    "resnet": "ResNet",
    "segformer": "Segformer",
    "swin": "Swin",
    "swinv2": "Swinv2",
    "vit": "ViT",
    "vit_msn": "ViTMSN",
}


@dataclass(frozen=True)
class Row:
    """family: of FAMILIES; parameters; flops: operations for one image of SIZE; license: of the weights."""

    family: str
    parameters: int
    flops: int
    license: str = "apache-2.0"


ROWS = {
    "facebook/convnext-tiny-224": Row("convnext", 28_589_128, 8_911_062_528),
    "facebook/regnet-y-040": Row("regnet", 20_646_656, 7_946_576_896),
    "google/vit-base-patch16-224": Row("vit", 86_567_656, 35_127_656_448),
    "microsoft/cvt-13": Row("cvt", 19_997_480, 9_132_178_432),
    "microsoft/resnet-50": Row("resnet", 25_557_032, 8_178_368_512),
    "microsoft/swin-tiny-patch4-window7-224": Row("swin", 28_288_354, 8_981_133_312),
    "sail/poolformer_s12": Row("poolformer", 11_915_176, 3_624_534_016),
}


def source(name: str) -> Path | str:
    """The folder that `hf/FOLDER` means, if it holds a configuration, else the repository of `hf/OWNER/NAME`; raises UserError for what is
    neither."""
    said = name.removeprefix(PREFIX)
    folder = Path(os.path.expanduser(said))  # as it stands where nobody is called so
    if os.path.isfile(folder / CONFIG):
        return folder
    if _REPOSITORY.fullmatch(said) is None or ".." in said or "--" in said:
        raise UserError(f"must be hf/OWNER/NAME, or hf/FOLDER of a folder with {CONFIG}, was {name!r}", where="--model")
    return said


def check(name: str) -> None:
    """Raise UserError for a name that is none, and where transformers is not installed."""
    source(name)
    check_installed(name)


def check_installed(name: str) -> None:
    """Raise UserError where transformers is not installed, which the model `name` needs."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{name} needs transformers, which is not installed", where="--model", fix="pip install 'saccade[transformers]'")
