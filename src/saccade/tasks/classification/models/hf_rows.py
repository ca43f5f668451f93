"""The classifiers of transformers: `hf/OWNER/NAME` of the Hugging Face hub, or `hf/FOLDER` on this machine. Neither torch nor transformers
is imported here.

A network is what its `config.json` says, of the families that are known here. Parameters are those of transformers' own configurations,
which are of these networks, with 1000 classes and three channels (a test holds them true); licences are those of the model cards.
"""

from __future__ import annotations

import importlib.util
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
    """family: of FAMILIES; parameters; license: of the weights."""

    family: str
    parameters: int
    license: str = "apache-2.0"


ROWS = {
    "facebook/convnext-tiny-224": Row("convnext", 28_589_128),
    "facebook/regnet-y-040": Row("regnet", 20_646_656),
    "google/vit-base-patch16-224": Row("vit", 86_567_656),
    "microsoft/cvt-13": Row("cvt", 19_997_480),
    "microsoft/resnet-50": Row("resnet", 25_557_032),
    "microsoft/swin-tiny-patch4-window7-224": Row("swin", 28_288_354),
    "sail/poolformer_s12": Row("poolformer", 11_915_176),
}


def source(name: str) -> Path | str:
    """The folder that `hf/FOLDER` means, if it holds a configuration, else the repository of `hf/OWNER/NAME`; raises UserError for what is
    neither."""
    said = name.removeprefix(PREFIX)
    folder = Path(said).expanduser()
    if (folder / CONFIG).is_file():
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
