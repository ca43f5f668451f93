"""Pre-trained weights: where timm's lie, and the one file of them that is fetched. Only safetensors; nothing is unpickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.core.errors import UserError

FILE = "model.safetensors"
OPEN_CLIP = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
BY_HAND = "bring the file on another machine and give it as --weights FILE"


@dataclass(frozen=True)
class Weights:
    """One set of published weights.

    mean, std: what they expect of values in 0..1, by channel; size: (height, width) they were trained at; license:
    "unknown" where timm states none.
    """

    repo: str
    file: str
    address: str
    license: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]


def weights(name: str) -> Weights:
    """The weights behind timm's `name` or `name.tag`, without any download. Raises UserError where none are published as safetensors."""
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(str(error), where="--model") from None
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
    address = f"https://huggingface.co/{repo}/resolve/{revision or 'main'}/{file}"
    size = (int(config.input_size[1]), int(config.input_size[2]))
    return Weights(repo, file, address, config.license or "unknown", tuple(config.mean), tuple(config.std), size)


def fetch(name: str) -> Path:
    """The local file of the weights behind `name`, downloaded unless it was before.

    Raises UserError naming the address and how to bring the file by hand where that fails.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found = weights(name)
    revision = found.address.removesuffix(f"/{found.file}").rpartition("/")[2]
    try:
        return Path(hf_hub_download(found.repo, found.file, revision=revision))
    except Exception as error:  # whichever HTTP library is below raises its own: all mean that the file is not here
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            problem = f"{found.repo} holds no {found.file}, and pickled weights are never opened"
        else:
            problem = f"cannot fetch the weights of {name} ({type(error).__name__})"
        raise UserError(f"{problem}: asked for {found.address}", where="--pretrained", fix=BY_HAND) from None


def local(path: Path) -> Path:
    """`path` where it is a safetensors file. Raises UserError for anything else, above all pickled checkpoints."""
    if path.suffix != ".safetensors":
        fix = "pickled files are never opened"
        raise UserError(f"weights must be a .safetensors file, got {path.suffix or path.name!r}", where=str(path), fix=fix)
    if not path.is_file():
        raise UserError("no such file", where=str(path))
    return path
