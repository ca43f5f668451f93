"""Pre-trained weights: where timm's and torchvision's lie, and the one file of them that is fetched. Nothing is unpickled here: timm's are
safetensors, torchvision's go through `nn.checkpoints`."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.core import licenses
from saccade.core.errors import UserError, unknown
from saccade.nn import fetching
from saccade.nn.fetching import Published

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision and timm state them
HUB = "https://huggingface.co"
FILE = "model.safetensors"
OPEN_CLIP = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
TORCHVISION = "torchvision/"
# Of torchvision, whose published weights expect values in -1..1: its own constructors turn ImageNet's normalisation into that.
HALVES, HALF = ("googlenet", "inception_v3"), (0.5, 0.5, 0.5)
BSD, SWAG = "bsd-3-clause", "cc-by-nc-4.0"  # torchvision's licence, and that of the weights which it names by the address of SWAG's
# What a part of a tag of timm's ("augreg_in21k_ft_in1k") says of the images that its weights have learned from.
DATA = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inw21k": "ImageNet-W21-P",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "laiona": "LAION-A",
    "openai": "OpenAI's pairs of 2021",
    "webli": "WebLI",
    "jft": "JFT-300M",
    "ig1b": "Instagram-1B",
    "swag": "Instagram-3.6B",
    "yfcc100m": "YFCC-100M",
    "yfcc15m": "YFCC-15M",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "sat493m": "SAT-493M",
    "datacomp1b": "DataComp-1B",
    "datacompxl": "DataComp-XL",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "dfndr2b": "DFNDR-2B",
    "merged2b": "Merged-2B",
    "sa1b": "SA-1B",
    "cc12m": "CC-12M",
}
COCO = "COCO train2017"
BY_HAND = "bring the file on another machine and give it as --weights FILE"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Weights:
    """One set of published weights.

    mean, std: what they expect of values in 0..1, by channel; size: (height, width) they were trained at; license:
    "unknown" where timm states none; parameters: of the network with them, 0 where not stated; data: what they learned from, "" where
    their name does not say; metric: accuracy on ImageNet-1k, where the library states it.
    """

    repo: str
    file: str
    address: str
    license: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    parameters: int = 0
    data: str = ""
    metric: float | None = None

    def link(self, name: str, file: Path) -> dict[str, str]:
        """Their link of a chain of descent, as the weights `name` that lie in `file`."""
        return licenses.link(name, license=self.license, source=self.address, file=file, data=self.data)


def weights(name: str) -> Weights:
    """The weights behind timm's `name` or `name.tag`, or torchvision's, without any download. Raises UserError where none are published
    that can be opened."""
    if name.startswith(TORCHVISION):
        return torchvisions(name)
    config = _config(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise UserError(f"no weights are published for {name}", where="--pretrained", fix="leave --pretrained out")
    if not config.hf_hub_id:
        raise UserError(
            f"the weights of {name} are published only as pickled code ({config.url}), which is never opened",
            where="--pretrained",
            fix="take another model, or give them as safetensors by --weights FILE",
        )
    repo, _, revision = config.hf_hub_id.partition("@")
    asked = config.hf_hub_filename or FILE
    file = asked if asked.endswith(".safetensors") else OPEN_CLIP.get(asked, FILE)
    address = f"{HUB}/{repo}/resolve/{revision or 'main'}/{file}"
    size = (int(config.input_size[1]), int(config.input_size[2]))
    license = config.license or licenses.UNKNOWN
    return Weights(repo, file, address, license, tuple(config.mean), tuple(config.std), size, data=_learned_from(config.tag or ""))


def _config(name: str) -> Any:
    """What timm states of `name` or `name.tag`, None where it knows of no weights; raises UserError with the nearest for a wrong tag."""
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # of the tag: that there is such a network was asked before
        raise unknown("weights", name, tags(name.partition(".")[0]), where="--model") from None


def tags(name: str) -> list[str]:
    """The sets of weights of a network of timm or torchvision, as `name.tag`."""
    if name.startswith(TORCHVISION):
        from torchvision.models import get_model_weights

        table: Any = get_model_weights(name.removeprefix(TORCHVISION))
        return [f"{name}.{one}" for one in table.__members__]
    from timm.models import list_pretrained

    found: list[str] = list_pretrained(f"{name}.*")
    return found


def _learned_from(tag: str) -> str:
    return ", ".join(dict.fromkeys(DATA[part] for part in tag.split("_") if part in DATA))


def colours(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, by channel, of values in 0..1, that the weights of a network of timm or torchvision expect, whoever
    published them."""
    if name.startswith(TORCHVISION):
        found = torchvisions(name)
        return found.mean, found.std
    config = _config(name) or _config(name.partition(".")[0])
    return (tuple(config.mean), tuple(config.std)) if config is not None else (MEAN, STD)


def torchvisions(name: str) -> Weights:
    """The weights behind `torchvision/resnet50`, the best there are, or `torchvision/resnet50.IMAGENET1K_V1`. Raises UserError with the
    nearest names for what is none."""
    from torchvision import models

    base, _, tag = name.removeprefix(TORCHVISION).partition(".")
    known = models.list_models(module=models)
    if base not in known:
        raise unknown("model", name, [TORCHVISION + one for one in known], where="--model")
    table: Any = models.get_model_weights(base)
    if tag and tag not in table.__members__:
        raise unknown("model", name, [f"{TORCHVISION}{base}.{one}" for one in table.__members__], where="--model")
    found = table[tag] if tag else table.DEFAULT
    seen = found.transforms()
    license = SWAG if "SWAG" in found.meta.get("license", "") else BSD
    side = seen.crop_size[0]
    file, count = found.url.rpartition("/")[2], int(found.meta["num_params"])
    data = f"{DATA['swag']}, {DATA['in1k']}" if "SWAG" in found.name else DATA["in1k"]
    mean, std = (seen.mean, seen.std) if base not in HALVES else (HALF, HALF)
    accuracy = round(found.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5)
    return Weights("", file, found.url, license, tuple(mean), tuple(std), (side, side), count, data, accuracy)


def published(found: Weights) -> Published:
    """The file of weights of torchvision's."""
    told = re.search(r"-([0-9a-f]{8,64})\.", found.file)  # they are named by the start of their sum
    return Published(found.file, found.address, told[1] if told else "", found.license)


def fetch_torchvisions(name: str, found: Weights) -> Path:
    """The local file of weights of torchvision, downloaded unless it was before; raises UserError as `fetch` does."""
    return fetching.fetch(published(found), f"the weights of {name}", where="--pretrained", by_hand=BY_HAND)


def fetch(name: str) -> Path:
    """The local file of the weights behind `name`, downloaded unless it was before.

    Raises UserError naming the address and how to bring the file by hand where that fails.
    """
    if name.startswith(TORCHVISION):
        return fetch_torchvisions(name, torchvisions(name))
    found = weights(name)
    return from_hub(name, found.repo, found.file, found.address.removesuffix(f"/{found.file}").rpartition("/")[2])


def from_hub(name: str, repo: str, file: str = FILE, revision: str = "main") -> Path:
    """The local copy of a file of a repository on the Hugging Face hub, with the weights of `name`; raises UserError as `fetch` does, and
    for one that has not the sum stated."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        place = downloaded(repo, file, revision)
    except Exception as error:  # whichever HTTP library is below raises its own: all mean that the file is not here
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            problem = f"{repo} holds no {file}, and pickled weights are not fetched from there"
        else:
            what = "the weights" if file.endswith((".safetensors", ".bin")) else file
            problem = f"cannot fetch {what} of {name} ({type(error).__name__})"
        raise UserError(
            f"{problem}: asked for {constants.ENDPOINT}/{repo}/resolve/{revision}/{file}", where="--pretrained", fix=BY_HAND
        ) from None
    _check_sum(place)
    return place


def downloaded(repo: str, file: str, revision: str) -> Path:
    """The copy of a file in the cache of the hub, or its download. Raises what its libraries raise.

    Where the hub is not reached, its own download asks again and again, for half a minute, behind a silent firewall for minutes: so it is
    asked for once before, and an answer that was slow or bad is left to it."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(repo, file, revision=revision), str):
        try:
            get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except Exception as error:
            if type(error).__name__.startswith("Connect"):  # ConnectError, ConnectTimeout, in whichever HTTP library
                raise
    return Path(hf_hub_download(repo, file, revision=revision))


def _check_sum(place: Path) -> None:
    """Raise UserError where a file in the cache of the hub is not what it was published as. What lies in large storage is linked to there
    under its SHA-256, as the hub states it; of small files, and where there can be no links, none is known."""
    target = Path(os.readlink(place)) if place.is_symlink() else Path()
    if target.parent.name != "blobs" or not _SHA256.fullmatch(target.name):
        return
    with open(place, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != target.name:
        problem = f"is not the file that is published: its SHA-256 must begin with {target.name[:16]}, begins with {found[:16]}"
        raise UserError(problem, where=str(place), fix=f"remove {place.resolve()}")


def stated(text: str) -> tuple[str, str]:
    """The licence and the data sets, with commas between, that the head of a model card of the hub states; "unknown" and "" otherwise."""
    head = re.match(r"---\s*\n(.*?)\n---", text, re.S)
    lines = head[1].splitlines() if head else []
    license = next((line.partition(":")[2].strip(" \"'").lower() for line in lines if line.startswith("license:")), "")
    sets = list[str]()
    for line in lines[lines.index("datasets:") + 1 :] if "datasets:" in lines else []:
        if not line.lstrip().startswith("- "):
            break
        sets.append(line.strip(" -\"'"))
    return license if re.fullmatch(r"[a-z0-9.+-]{1,64}", license) else licenses.UNKNOWN, ", ".join(sets)


def local(path: Path, name: str) -> Path:
    """`path` where it is a safetensors file. Raises UserError for anything else, above all pickled checkpoints; torchvision's, which are
    read by `nn.checkpoints`, may be such."""
    if not name.startswith(TORCHVISION) and path.suffix != ".safetensors":
        fix = "pickled files are never opened"
        raise UserError(f"weights must be a .safetensors file, got {path.suffix or path.name!r}", where=str(path), fix=fix)
    if not path.is_file():
        raise UserError("no such file", where=str(path))
    return path
