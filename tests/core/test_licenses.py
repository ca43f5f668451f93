"""Chains of descent: what is allowed, what a link states, and the lines that people read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from saccade.core import licenses
from saccade.core.errors import UserError


@pytest.mark.parametrize(
    ("license", "by", "allowed"),
    [
        ("mit", "mit", True),
        ("MIT", "apache-2.0, Mit", True),
        ("bsd-3-clause", "bsd", True),
        ("bsd-2-clause", "bsd", True),
        ("apache-2.0", "apache", True),
        ("cc-by-nc-4.0", "cc-by,cc-by-4.0,cc", False),
        ("bsd", "bsd-3-clause", False),
        ("unknown", "mit", False),
        ("unknown", "unknown", True),
        ("apple-ascl", "apache", False),
    ],
)
def test_what_is_allowed(license: str, by: str, allowed: bool) -> None:
    assert licenses.allowed(license, licenses.names(by)) is allowed
    chain = [{"weights": "theirs", "license": "mit"}, {"weights": "w", "license": license}, {"weights": "mine"}]
    if allowed:
        licenses.refuse(chain, (*licenses.names(by), "mit"), where="here")
        return
    with pytest.raises(UserError, match=r"here: the weights w are .*must be under") as caught:
        licenses.refuse(chain, (*licenses.names(by), "mit"), where="here")
    assert "\n" not in str(caught.value)


def test_none_named_allows_all() -> None:
    licenses.refuse([{"weights": "w", "license": "cc-by-nc-4.0"}], (), where="")
    assert licenses.names(None) == ()


@pytest.mark.parametrize("text", ["", " ", "mit,", ",mit", []])
def test_no_name_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names of licences"):
        licenses.names(text)


def test_a_link_and_its_line(tmp_path: Path) -> None:
    file = tmp_path / "run 1" / "best.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    assert licenses.name_of(file) == "run 1/best.safetensors" and licenses.name_of(tmp_path / "x.pt") == "x.pt"
    found = licenses.link("w", license="mit", source="https://x", file=file, data="MNIST")
    told = hashlib.sha256(b"weights").hexdigest()
    assert found == {"weights": "w", "source": "https://x", "sha256": told, "license": "mit", "data": "MNIST"}
    lines = licenses.words([found, {"weights": "this model", "data": "d"}, {"weights": "v", "note": "other"}])
    assert lines == [
        f"w · licence mit · learned from MNIST · from https://x · SHA-256 {told}",
        "this model · learned from d",
        "v · note other",
    ]
    assert licenses.link("w") == {"weights": "w"}
