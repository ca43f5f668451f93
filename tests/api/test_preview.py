"""What training makes of images, on a page: every change by itself, with the labels that it leaves."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.cli.main import main
from saccade.core.errors import UserError
from saccade.core.progress import Silent


def rows(out: Path) -> list[dict[str, Any]]:
    found = []
    for number in range(1, len(list((out / "pages").glob("[0-9]*.js"))) + 1):
        text = (out / f"pages/{number}.js").read_text()
        found += json.loads(re.fullmatch(r"page\(\d+, (.*)\);\n", text, re.DOTALL)[1])  # type: ignore[index]
    return found


def pixels(row: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(row["src"].partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("classify", ["flip", "crop", "rotate, shift", "color, hue", "cutmix"]),
        ("detect", ["flip", "color, hue", "resize", "mosaic"]),
        ("segment", ["flip", "color, hue", "resize", "paste"]),
        ("instances", ["flip", "color, hue", "resize", "mosaic", "paste"]),
    ],
)
def test_each_change_and_all(tmp_path: Path, task: str, changes: list[str]) -> None:
    # The canvas of scenes has sides of multiples of 32: images of such a size lie on it as they are.
    scenes = task != "classify"
    saccade.data.make("shapes", task=task, n=40, size=(32, 64) if scenes else (34, 22), out=tmp_path / "set")
    more = ({"size": (32, 64)} if scenes else {}) | ({"augment.paste": 0.5} if task == "instances" else {})
    told = saccade.preview(tmp_path / "set", out=tmp_path / "page", images=2, set=more)
    found = rows(tmp_path / "page")
    assert told["images"] == len(found) and Path(told["page"]).is_file()
    titles = list(dict.fromkeys(re.sub(r" \(\d\)$", "", row["path"].partition(": ")[2]) for row in found))
    assert [sorted(title.split(", ")) for title in titles[1:-1]] == [sorted(title.split(", ")) for title in changes]
    assert (titles[0], titles[-1]) == ("as it is", "all, as in training")
    assert not any("error" in row for row in found)
    one = {row["path"].partition(": ")[2]: row for row in found[: len(found) // 2]}
    assert np.abs(pixels(one["as it is"])[:, ::-1] - pixels(one["flip (1)"])).mean() < 12, "mirrored, and no more"
    assert "flip (2)" not in one, "what no chance changes is shown once"
    if task == "classify":
        assert len(one["cutmix (1)"]["labels"] + one["cutmix (2)"]["labels"]) > 2
    elif task == "segment":
        assert all("mask" in row for row in found)
    else:
        assert all(row["objects"] for row in found if row["path"].endswith("as it is"))
        assert all(("rings" in thing) == (task == "instances") for row in found for thing in row["objects"])
        width = one["as it is"]["width"]
        turned = [[width - x2, y1, width - x1, y2] for x1, y1, x2, y2 in (thing["box"] for thing in one["as it is"]["objects"])]
        np.testing.assert_allclose([thing["box"] for thing in one["flip (1)"]["objects"]], turned, atol=0.11)


def test_transparent_images_and_several_labels(tmp_path: Path) -> None:
    (tmp_path / "clear").mkdir()
    for k in range(60):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (17, 11, 4), dtype=np.uint8)).save(tmp_path / f"clear/{k:02d}.png")
    told = saccade.preview(tmp_path / "clear", out=tmp_path / "page", task="generate", set={"augment.flip": 1.0}, images=1)
    assert told["images"] == 3, "as it is, mirrored, and all together, which is that too"
    (tmp_path / "clear/labels.csv").write_text("image,labels\n" + "".join(f"{k:02d}.png,{'a|b' if k % 2 else 'b'}\n" for k in range(60)))
    saccade.preview(tmp_path / "clear", out=tmp_path / "many", task="classify", images=1)
    found = rows(tmp_path / "many")
    assert found[0]["labels"] in ([0, 1], [1])
    assert all(set(row["labels"]) >= set(found[0]["labels"]) for row in found)


def test_what_is_refused(tmp_path: Path) -> None:
    saccade.data.make("shapes", task="detect", n=20, size=(17, 11), out=tmp_path / "set")
    with pytest.raises(UserError, match="paste is no change of detect"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", set={"augment.paste": 0.5})
    with pytest.raises(UserError, match=r"did you mean augment\.mosaic"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", set={"augment.mosiac": 0.5})
    off = {"augment.flip": 0, "augment.color": 0, "augment.hue": 0, "augment.mosaic": 0, "augment.resize": [1, 1]}
    with pytest.raises(UserError, match="no change is on"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", set=off)
    with pytest.raises(UserError, match="rotate is no change of detect"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", set={"augment.rotate": 10})
    with pytest.raises(UserError, match="must be detect for this set"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", set={"task": "classify"})
    with pytest.raises(UserError, match="1 or more"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", images=0)
    with pytest.raises(UserError, match="color is no change of generate"):
        saccade.preview(tmp_path / "set", out=tmp_path / "page", task="generate", set={"augment.color": 0.1})
    assert not (tmp_path / "page").exists()
    (tmp_path / "page").mkdir()
    (tmp_path / "page/mine.txt").touch()
    with pytest.raises(UserError, match="new or an empty folder"):
        saccade.preview(tmp_path / "nowhere", out=tmp_path / "page")


class Told(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """More images asked for than there are, in another split than train, one of them broken; in the colours that the model sees."""
    for k in range(8):
        (tmp_path / "set/val" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), (200, 20 * k, 0), np.uint8)).save(tmp_path / f"set/val/{'ab'[k % 2]}/{k}.png")
    (tmp_path / "set/val/a/0.png").write_bytes(b"none")
    told = Told()
    saccade.preview(tmp_path / "set", out=tmp_path / "page", images=99, set={"channels": 1}, progress=told)
    found = rows(tmp_path / "page")
    assert len({row["path"].partition(": ")[0] for row in found}) == 7 and not any("error" in row for row in found)
    assert any("0.png" in text for text in told.messages)
    assert np.ptp(pixels(found[0]), axis=2).max() < 4, "grey, as asked"
    for path in (tmp_path / "set/val").rglob("*.png"):
        path.write_bytes(b"none")
    with pytest.raises(UserError, match="none of the images can be read"):
        saccade.preview(tmp_path / "set", out=tmp_path / "again")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saccade.data.make("shapes", task="detect", n=20, size=(17, 11), out=tmp_path / "set")
    asked = ["data", "preview", str(tmp_path / "set"), "--out", str(tmp_path / "page"), "--images", "1", "--json", "--quiet"]
    assert main([*asked, "--set", "augment.mosaic=0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == str(tmp_path / "page/index.html") and told["images"] == len(rows(tmp_path / "page"))
    assert not any("mosaic" in row["path"] for row in rows(tmp_path / "page"))
    assert main(asked) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err
