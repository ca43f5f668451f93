"""Published weights: where they lie, and what a machine without network says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from saccade.core.errors import UserError
from saccade.nn.pretrained import colours, from_hub, weights


def test_where_weights_lie() -> None:
    found = weights("resnet18.a1_in1k")
    assert found.address == "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert found.license == "apache-2.0"
    assert len(found.mean) == len(found.std) == 3
    assert weights("resnet18").repo.startswith("timm/resnet18.")


def test_a_wrong_tag_names_the_nearest() -> None:
    for ask in (weights, colours):
        with pytest.raises(UserError, match=r"unknown weights 'resnet50.a2_in1' \(did you mean resnet50.a2_in1k"):
            ask("resnet50.a2_in1")


def test_never_a_pickle() -> None:
    import timm
    from timm.models import get_pretrained_cfg

    for name in timm.list_models():
        config = get_pretrained_cfg(name)
        if config is None or not (config.hf_hub_id or config.url):
            with pytest.raises(UserError, match="no weights are published"):
                weights(name)
        elif not config.hf_hub_id:
            with pytest.raises(UserError, match="pickled"):
                weights(name)
        else:
            assert weights(name).address.endswith(".safetensors")


@pytest.mark.processes
@pytest.mark.long
def test_without_network_one_line_says_what_to_bring(tmp_path) -> None:
    code = "import time; time.sleep = lambda seconds: exit(f'waits for {seconds} s')\n"  # as the library does between its tries
    code += "from saccade.nn.backbones import classifier; classifier('resnet18.a1_in1k', classes=2, pretrained=True)"
    # A port of this machine where nobody listens: the same as no network, without asking one.
    quiet = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **quiet}, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "saccade.core.errors.UserError" in last
    assert "asked for http://127.0.0.1:9/timm/resnet18.a1_in1k/resolve/main/model.safetensors" in last, "the mirror, where one is set"
    assert "--weights FILE" in last


def test_a_file_of_the_hub_is_checked_against_its_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache links to it under its sum, perhaps by way of a store that several caches share, where it has another name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for folder in ("blobs", "refs", "snapshots/abc"):
        (tmp_path / "models--a--b" / folder).mkdir(parents=True)
    (tmp_path / "models--a--b/refs/main").write_text("abc")
    place, held = tmp_path / "models--a--b/snapshots/abc/model.safetensors", tmp_path / ("0" * 64)
    blob = tmp_path / "models--a--b/blobs" / hashlib.sha256(b"abc").hexdigest()
    blob.symlink_to(held)
    place.symlink_to(f"../../blobs/{blob.name}")
    held.write_bytes(b"abc")
    assert from_hub("net", "a/b") == place
    held.write_bytes(b"abd")
    with pytest.raises(UserError, match=f"not the file that is published: its SHA-256 must begin with ba7816bf.* .remove {held}") as caught:
        from_hub("net", "a/b")
    assert "\n" not in str(caught.value) and held.exists()
    place.unlink()
    place.symlink_to("../../blobs/" + "0" * 40)  # of a small file, by git
    (blob.parent / ("0" * 40)).write_bytes(b"abd")
    assert from_hub("net", "a/b").read_bytes() == b"abd"
