"""The chain of what a model descends from, a link for each set of weights: its name, source, SHA-256, licence and data set; and which
licences a user allows.

A link is a row of texts: "weights" (name), "source" (address, or what the user said), "sha256" (of the file, hexadecimal), "license" (none
of what saccade itself trained: its licences are those of the links before it), "data" (the data set it learned from). What is not known is
left out. Oldest first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from saccade.core.errors import UserError

UNKNOWN = "unknown"
# Names that stand for several licences which ask for the same; no other name stands for more than itself (cc-by-nc is not cc-by).
FAMILIES = {"bsd": ("bsd-2-clause", "bsd-3-clause"), "apache": ("apache-2.0",)}
WORDS = {"weights": "", "license": "licence ", "data": "learned from ", "source": "from ", "sha256": "SHA-256 "}
OF_RUNS = ("best.safetensors", "last.safetensors")  # names that say nothing without their run's

Link = Mapping[str, str]


def names(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """`a,b,c`, or a list of names, as names in lower case; raises UserError where none is left."""
    if text is None:
        return ()
    found = tuple(one.strip().lower() for one in (text.split(",") if isinstance(text, str) else text))
    if not all(found) or not found:
        problem = f"must be names of licences with commas between, was {text!r}"
        raise UserError(problem, where="--license", fix="--license apache-2.0,mit,bsd")
    return found


def allowed(license: str, by: Sequence[str]) -> bool:
    """Whether a licence is one of those named."""
    known = {name for one in by for name in (one.lower(), *FAMILIES.get(one.lower(), ()))}
    return license.lower() in known


def refuse(chain: Iterable[Link], by: Sequence[str], *, where: str, fix: str = "") -> None:
    """Raise UserError for the first link under a licence that is not one of `by`; an empty `by` allows all."""
    for link in chain:
        license = link.get("license", "")
        if by and license and not allowed(license, by):
            said = "of unknown licence" if license == UNKNOWN else f"under {license}"
            raise UserError(
                f"the weights {link.get('weights', '')} are {said}, must be under {' or '.join(by)}",
                where=where,
                fix=fix or "take others, or allow it: --license",
            )


def link(weights: str, *, license: str = "", source: str = "", file: Path | None = None, data: str = "") -> dict[str, str]:
    """A link; file: where its sum is taken from."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file is not None else ""
    texts = {"weights": weights, "source": source, "sha256": sha256, "license": license, "data": data}
    return {name: text for name, text in texts.items() if text}


def name_of(file: Path) -> str:
    """What to call a file of weights: its name, with that of the run it is the best of."""
    return f"{file.absolute().parent.name}/{file.name}" if file.name in OF_RUNS else file.name


def words(chain: Iterable[Link]) -> list[str]:
    """A line a link, for people."""
    lines = []
    for one in chain:
        known = [(name, one[name]) for name in WORDS if one.get(name)] + [(name, text) for name, text in one.items() if name not in WORDS]
        lines.append(" · ".join(f"{WORDS.get(name, f'{name} ')}{text}" for name, text in known))
    return lines
