"""The page: hostile names change nothing, missing parts are left out, pictures carry no EXIF, the same data give the same bytes."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from saccade.core.errors import UserError
from saccade.report.page import ReportData, render, write
from saccade.report.words import visible

STYLE = re.compile(r"(left|width):[\d.]+%(;width:[\d.]+%)?|--s:\d+|text-align:left")
DATA_URI = re.compile(r"data:([a-z+/]+);base64,([A-Za-z0-9+/=]+)")


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> set[str | None]:
        return {attributes["id"] for attributes in self.all("h2") if "id" in attributes}


def pictures(text: str) -> list[tuple[str, bytes]]:
    return [(kind, base64.b64decode(data)) for kind, data in DATA_URI.findall(text)]


def test_hostile_texts_add_no_element_and_no_attribute(attacked: ReportData, harmless: ReportData) -> None:
    shapes = [[(tag, sorted(attributes)) for tag, attributes in Page(render(data)).elements] for data in (attacked, harmless)]
    assert shapes[0] == shapes[1]


def test_no_scripts_no_handlers_and_nothing_from_outside(attacked: ReportData) -> None:
    page = Page(render(attacked))
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "form", "base", "audio", "video"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert STYLE.fullmatch(attributes.get("style") or "left:0%")
        assert all((attributes.get(key) or "data:").startswith("data:") for key in ("src", "srcset"))
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_hostile_texts_are_readable_as_what_they_are(attacked: ReportData, hostile: list[str]) -> None:
    text = Page(render(attacked)).text
    assert all(visible(name) in text for name in hostile)


def test_no_character_of_the_page_reorders_or_hides_text(attacked: ReportData) -> None:
    text = render(attacked)
    assert not re.findall("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x09\x0b-\x1f\ud800-\udfff]", text)
    text.encode("utf-8")


def test_plots_hold_no_text_from_outside_and_are_well_formed(attacked: ReportData) -> None:
    from xml.etree import ElementTree

    drawings = [data for kind, data in pictures(render(attacked)) if kind == "image/svg+xml"]
    assert len(drawings) == 8  # loss, score, rate, reliability; light and dark
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert not re.search(rb"alert|script|onerror|http(?!://www\.w3\.org)", drawing)


def test_same_data_same_bytes_whatever_the_users_matplotlib_settings(digits: ReportData) -> None:
    first = render(digits)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red", "svg.hashsalt": None}):
        assert render(digits) == first
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert not re.search(r"20\d\d-\d\d-\d\dT", "".join(data.decode() for kind, data in pictures(first) if "svg" in kind))


def test_no_exif_and_no_source_bytes(make_report: Any) -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "SECRETCAMERA"
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (300, 200), "teal").save(stream, "JPEG", exif=exif, comment=b"SECRETCOMMENT")
    assert b"SECRETCAMERA" in stream.getvalue()
    pixels = np.asarray(Image.open(stream))
    row = {"source": "a.jpg", "truth": "a", "label": "b", "score": 0.9, "truth_score": 0.1, "picture": pixels, "map": pixels[:17, :11]}
    found = [data for kind, data in pictures(render(make_report(["aaaaa", "bbbbb"], mistakes=[row], examples=[row]))) if "svg" not in kind]
    assert len(found) == 4
    for data in found:
        assert not Image.open(io.BytesIO(data)).getexif()
        assert b"Exif" not in data and b"SECRET" not in data


def test_without_images_no_picture_is_left(digits: ReportData) -> None:
    text = render(digits, images=False)
    assert {kind for kind, _ in pictures(text)} == {"image/svg+xml"}
    assert not [a for a in Page(text).all("img") if "photo" in (a.get("class") or "")]
    assert "test/digit 9/0.png" in text and "Pictures were left out" in text
    assert [a for a in Page(render(digits)).all("img") if "photo" in (a.get("class") or "")]


def test_a_run_of_ten_classes_stays_small(make_report: Any) -> None:
    rng = np.random.Generator(np.random.Philox(0))
    noise = rng.integers(0, 256, (48, 480, 640, 3), dtype=np.uint8)  # noise compresses worst
    smooth = np.asarray([np.asarray(Image.fromarray(n).resize((40, 30)).resize((640, 480))) for n in noise])
    row = {"source": "a.jpg", "truth": "a", "label": "b", "score": 0.9, "truth_score": 0.1}
    rows = [{**row, "picture": pixels, "map": pixels[::-1]} for pixels in smooth]
    curves = [{"step": i, "epoch": i / 1000, "loss": float(rng.random()), "lr": 0.1} for i in range(20_000)]
    data = make_report([f"class {i}" for i in range(10)], mistakes=rows[:36], examples=rows[36:], curves=curves)
    assert len(render(data).encode()) < 1_500_000


def test_the_verdict_stands_in_words(digits: ReportData) -> None:
    text = " ".join(Page(render(digits)).text.replace("\u202f", " ").split())
    assert "On 303 held-out test images the model is right 98.9 % of the time (95 % interval 97.5–99.7 %)." in text
    assert "It most often takes digit 9 for digit 0 (3 of 33)." in text
    assert "digit 9 weakest" in text


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ReportData) if f.name != "title"])
def test_each_part_may_be_missing(digits: ReportData, name: str) -> None:
    field = next(f for f in dataclasses.fields(ReportData) if f.name == name)
    empty = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    page = Page(render(dataclasses.replace(digits, **{name: empty})))
    assert "None" not in page.text and "nan" not in page.text
    assert page.all("h1")


def test_nothing_measured_yet() -> None:
    page = Page(render(ReportData(title="new")))
    assert "not been measured on any image yet" in page.text
    assert page.ids() == {"mistakes"}


def test_no_mistakes_is_celebrated_without_overclaiming(make_report: Any) -> None:
    names = ["first", "second"]
    headline = [{"name": "accuracy", "value": 1.0, "low": 1.0, "high": 1.0}]
    data = make_report(names, mistakes=[], confusion=[[180, 0], [0, 180]], images=360, headline=headline)
    text = Page(render(data)).text.replace("\u202f", " ")
    assert "Not one mistake on 360 held-out test images" in text and "as high as 0.8 %" in text
    assert "100–100" not in text


def test_one_image_one_class() -> None:
    data = ReportData("one", split="val", images=1, classes=["only"], confusion=[[1]],
                      per_class=[{"class": "only", "images": 1, "f1": 1.0}],
                      headline=[{"name": "accuracy", "value": 1.0}], curves=[{"step": 1, "loss": 0.5}])  # fmt: skip
    text = Page(render(data)).text
    assert "On 1 validation image " in text and "weakest" not in text


def test_many_classes_show_pairs_and_the_weakest_first(make_report: Any) -> None:
    names = [f"species {i:02d}" for i in range(40)]
    page = Page(render(make_report(names)))
    assert "The other 30 classes" in page.text and "species 39" in page.text.split("The other 30 classes")[0]
    assert "3 of 33" in page.text
    assert [a for a in page.all("img") if (a.get("alt") or "").startswith("Confusion matrix of 40")]
    assert not [a for a in page.all("td") if "--s" in (a.get("style") or "")]


def test_warnings_are_cut_and_counted(make_report: Any) -> None:
    text = Page(render(make_report(["aaaaa", "bbbbb"], notes=[f"note {i}." for i in range(500)]))).text
    for part in ("500 things to know", "and 300 that are not listed", "note 199."):
        assert part in text
    assert "note 200." not in text


def test_a_matrix_that_does_not_fit_is_a_defect(make_report: Any) -> None:
    with pytest.raises(ValueError, match="must be 2 x 2"):
        render(make_report(["aaaaa", "bbbbb"], confusion=[[1]]))


def test_write_is_what_render_gives(digits: ReportData, tmp_path: Path) -> None:
    assert write(tmp_path / "report.html", digits).read_text("utf-8") == render(digits)
    with pytest.raises(UserError):
        write(tmp_path / "missing" / "report.html", digits)


def plain(page: Page) -> str:
    return " ".join(page.text.replace("\u202f", " ").split())


@pytest.fixture(scope="module")
def gan_page(gan: ReportData) -> Page:
    return Page(render(gan))


def test_a_gan_shows_what_it_makes_and_nothing_of_answers(gan_page: Page) -> None:
    text = plain(gan_page)
    assert gan_page.ids() == {"made", "training", "used", "next"}
    assert {a["href"] for a in gan_page.all("a")} == {f"#{name}" for name in gan_page.ids()}
    assert "image generation report" in text and "What it makes" in text
    assert "The made images are at FID 12.3 (classifier features; 95 % interval 11.8–12.9) from the 6,000 validation images" in text
    assert "Best FID (classifier features) on the validation images: 6.667 at epoch 6 of 6." in text
    assert "Measured on the validation images, which also chose the best state of the network" in text and "a little less" not in text
    assert "neither has to fall" in text and "1 class" not in text
    assert not re.search(r"(?i)mistake|right answer|mixe[sd] up|not been evaluated", text)


def test_figures_stand_in_order_as_png_with_their_words(gan_page: Page, gan: ReportData) -> None:
    shown = [a for a in gan_page.all("img") if (a.get("src") or "").startswith("data:image/png")]
    assert [a["alt"] for a in shown] == [row["title"] for row in gan.figures]
    assert [(a["class"] or "").split() for a in shown] == [["hard"], ["strip"], ["hard", "clear"], ["hard"], ["hard"], []]
    sizes = [Image.open(io.BytesIO(pictures(a["src"] or "")[0][1])).size for a in shown]
    assert sizes == [(11, 17), (1600, 12), (96, 64), (11, 17), (11, 17), (700, 700)]


def test_a_vae_says_how_it_stores(vae: ReportData) -> None:
    page = Page(render(vae))
    text = plain(page)
    assert "It stores the 6,000 held-out test images in 1.021 bits per value (lower is better), and its reconstructions match" in text
    assert "Best bits per dimension" in text and "Loss: what training makes small" in text and "neither has to fall" not in text
    assert "−12,346" in text and "24.13 dB" in text and page.ids() == {"made", "training", "used", "next"}


def test_without_images_the_figures_go_with_their_section(gan: ReportData) -> None:
    text = render(gan, images=False)
    assert {kind for kind, _ in pictures(text)} == {"image/svg+xml"}
    assert Page(text).ids() == {"training", "used", "next"} and "figure 0" not in Page(text).text.replace(gan.title, "")


def test_figures_called_hostile_names_add_nothing(make_generated: Any, hostile: list[str]) -> None:
    tame = [f"harmless {i}" for i in range(len(hostile))]
    headlines = [[{"name": f"fid_{texts[0]}", "value": 1.0, "low": 0.5, "high": 2.0}] for texts in (hostile, tame)]
    # One plot's worth of rows: what is attacked here is text.
    attacked, harmless = (
        Page(render(make_generated(texts, headline=headline, curves=())))
        for texts, headline in zip((hostile, tame), headlines, strict=True)
    )
    assert [(tag, sorted(a)) for tag, a in attacked.elements] == [(tag, sorted(a)) for tag, a in harmless.elements]
    assert all(visible(text) in attacked.text for text in hostile)


def test_a_figure_without_a_picture_and_a_run_without_anything() -> None:
    page = Page(render(ReportData("new", task="generate", figures=[{"title": "to come", "text": "", "picture": None}])))
    assert page.ids() == {"made"} and "to come" in page.text and "no picture" in page.text
    bare = Page(render(ReportData("new", task="generate")))
    assert bare.ids() == set() and "not been measured on any image yet" in bare.text


def test_answers_handed_to_a_run_that_makes_images_are_not_shown(digits: ReportData) -> None:
    page = Page(render(dataclasses.replace(digits, task="generate", curves=(), headline=())))
    assert page.ids() == {"used", "next"} and "digit 9 for digit 0" not in plain(page)


def test_where_images_leave_a_network_early() -> None:
    rows = [
        {"exit": "layer2.<b>", "images": 1200, "share": 0.75, "accuracy": 0.991, "flops": 1_234_567},
        {"exit": "the last layer", "images": 0, "share": 0.0, "accuracy": None, "flops": 9_000_000},
    ]
    text = Page(render(ReportData("digits", exits=rows))).text
    assert "Where images leave" in text and "layer2.<b>" in text and "1,200" in text and "1,234,567" in text and "—" in text
    assert "Where images leave" not in Page(render(ReportData("digits"))).text
