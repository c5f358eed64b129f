"""A page is one file: nothing in it is markup from a name, and nothing is fetched."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ddpm.data.pictures import save_png
from ddpm.reporting.page import write_page
from ddpm.runtime.errors import InputError

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
LONG = "# Title\n\n" + "".join(f"## Part {number}\n\nText.\n\n" for number in range(4))


class Elements(HTMLParser):
    """All start tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.all if name == tag]


def written(folder: Path, markdown: str, title: str = "A title") -> str:
    write_page(markdown, folder / "page.html", title)
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "pictures" / "a flower.png"
    save_png(np.arange(300 * 4 * 3, dtype=np.uint8).reshape(4, 300, 3), path)
    return path


@pytest.mark.parametrize(
    "markdown",
    [
        HOSTILE,
        f"# {HOSTILE}",
        f"{LONG}## {HOSTILE}",
        f"| class |\n|---|\n| {HOSTILE} |",
        f"`{HOSTILE}`",
        f"![{HOSTILE}](<pictures/a flower.png>)",
        f"[{HOSTILE}](fid.md)",
        "[press](javascript:alert(1)) [or](<data:text/html,<script>alert(1)</script>>)",
        '[quote](<fid.md" onclick="alert(1)>)',
    ],
)
def test_no_text_becomes_markup_or_script(tmp_path, picture, markdown):
    page = Elements(written(tmp_path, markdown, HOSTILE))
    assert page.of("script") == [] and page.of("base") == []
    assert not [attrs for _, attrs in page.all if any(name.startswith("on") for name in attrs)]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.of("img"))
    assert not [link for link in page.of("a") if link["href"].startswith(("javascript:", "data:"))]


def test_pictures_are_embedded_with_their_bytes_and_captions(tmp_path, picture):
    page = written(tmp_path, "![Two *nice* petals](<pictures/a flower.png>)\n\n- ![in a list](pictures/a%20flower.png)")
    images = Elements(page).of("img")
    assert [base64.b64decode(image["src"].partition(",")[2]) for image in images] == [picture.read_bytes()] * 2
    assert [image["alt"] for image in images] == ["Two nice petals", "in a list"]
    assert (images[0]["width"], images[0]["height"]) == ("300", "4")
    assert page.count("<figure>") == 1 and "<figcaption>Two nice petals</figcaption></figure>" in page


def test_only_small_pictures_are_enlarged_and_by_a_whole_factor(tmp_path):
    for width in (20, 150, 160):
        save_png(np.zeros((10, width, 3), np.uint8), tmp_path / f"{width}.png")
    images = Elements(written(tmp_path, "![](20.png) ![](150.png) ![](160.png)")).of("img")
    assert [(image["width"], image["height"]) for image in images] == [("320", "160"), ("300", "20"), ("160", "10")]
    assert [image.get("class") for image in images] == ["pixels", "pixels", None]


def test_nothing_is_fetched(tmp_path, picture):
    page = written(tmp_path, "[a paper](https://arxiv.org/abs/2006.11239) ![a](<pictures/a flower.png>)")
    elements = Elements(page)
    fetched = [attrs[name] for tag, attrs in elements.all if tag != "a" for name in ("src", "href") if name in attrs]
    assert fetched and all(address.startswith("data:") for address in fetched)
    assert "url(" not in page and "@import" not in page and not elements.of("script")
    (policy,) = [meta["content"] for meta in elements.of("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_pages_link_to_each_other_and_other_links_stay(tmp_path):
    targets = ["explore.md", "fid.md#the-data", "#here", "https://example.org/a.md", "../README.md"]
    page = written(tmp_path, " ".join(f"[a]({target})" for target in targets))
    kept = ["#here", "https://example.org/a.md", "../README.md"]
    assert [link["href"] for link in Elements(page).of("a")] == ["explore.html", "fid.html#the-data", *kept]


def test_four_sections_have_a_table_of_contents_whose_links_lead_to_them(tmp_path):
    page = written(tmp_path, LONG + "### Below\n\n## Part 1\n\n## Loss, `ᾱ` & SNR\n")
    assert re.findall(r'<li><a href="#(.+?)">(.+?)</a>', page) == [
        *((f"part-{number}", f"Part {number}") for number in range(4)),
        ("part-1-1", "Part 1"),
        ("loss-ᾱ--snr", "Loss, ᾱ &amp; SNR"),
    ]
    for link in Elements(page).of("a"):
        assert page.count(f'id="{link["href"][1:]}"') == 1
    assert page.index("<h1") < page.index("<nav") < page.index("<h2")
    assert "<nav" not in written(tmp_path, LONG.replace("## Part 3", "Part 3"))


def test_tables_scroll_in_their_own_box(tmp_path):
    page = written(tmp_path, "| a | b |\n|---|---|\n| 1 | 2 |\n")
    assert '<div class="scroll"><table>' in page and "</table></div>" in page


def test_the_same_text_and_pictures_give_the_same_bytes_anywhere(tmp_path, picture):
    elsewhere = tmp_path / "else where" / "pictures"
    elsewhere.mkdir(parents=True)
    (elsewhere / picture.name).write_bytes(picture.read_bytes())
    markdown = f"{LONG}![A flower](<pictures/a flower.png>)"
    assert written(tmp_path, markdown) == written(elsewhere.parent, markdown)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("gone.png", "No such file or directory"),
        ("../secret.png", "it lies elsewhere"),
        ("/etc/hostname", "it lies elsewhere"),
        ("https://example.org/a.png", "No such file or directory"),
        ("text.png", "cannot identify image file"),
        ("pictures", "Is a directory"),
    ],
)
def test_a_picture_that_cannot_be_embedded_is_named(tmp_path, picture, name, fault):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=rf"^\S+: the picture '{re.escape(name)}' of a page cannot .*{fault}.*`dvc re"):
        written(tmp_path, f"![a]({name})")


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_pictures_that_dvc_has_linked_into_its_cache_are_embedded(tmp_path, picture, link):
    """As `cache.type` symlink and hardlink leave them."""
    plain = written(tmp_path, "![a](<pictures/a flower.png>)")
    cached = tmp_path.parent / f"{tmp_path.name} cache"
    picture.rename(cached)
    link(picture, cached)
    assert written(tmp_path, "![a](<pictures/a flower.png>)") == plain
