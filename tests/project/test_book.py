"""The reading site, opened from disk in a browser: no errors, whole pictures, no dead links, search, a phone."""

import shutil
import subprocess
import sys
import tomllib
from urllib.parse import unquote, urldefrag, urlparse

import pytest

from helpers.runs import repo_root

ROOT = repo_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHAPTERS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
PAGES = ["index", *sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index"), *CHAPTERS]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning of Sphinx is an error."""
    source, html = (tmp_path_factory.mktemp(name) for name in ("source", "html"))
    shutil.copytree(ROOT / "docs", source, dirs_exist_ok=True)
    for chapter in CHAPTERS:
        shutil.copy(ROOT / "notebooks" / f"{chapter}.ipynb", source)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", ROOT / "docs", source, html]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return html


@pytest.fixture
def page(browser):
    """A page that remembers what went wrong, and every address that is not on disk."""
    page = browser.new_page()
    page.wrong = []
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: page.wrong.append(request.url) if request.url.startswith("http") else None)
    page.on("requestfailed", lambda request: page.wrong.append(f"failed: {request.url}"))
    yield page
    page.close()


def test_the_site_has_every_chapter(site):
    assert len(CHAPTERS) == 9
    assert {f"{name}.html" for name in PAGES} <= {path.name for path in site.glob("*.html")}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_error_and_with_all_its_pictures(site, page, name):
    page.goto((site / f"{name}.html").as_uri())
    assert page.wrong == []
    pictures = page.eval_on_selector_all(
        "article img", "all => all.map(image => [image.src, image.naturalWidth, image.alt])"
    )
    assert all(width > 0 and alt.strip() and not alt.startswith("_images") for _, width, alt in pictures), pictures
    assert not pictures or name in ("index", *CHAPTERS)
    assert name not in CHAPTERS or len(pictures) >= 5
    assert name != "index" or len(pictures) == len(CHAPTERS) + 1
    assert page.locator("nav a:has-text('Transfer learning')").count() >= 1


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_site_lead_somewhere(site, page, name):
    page.goto((site / f"{name}.html").as_uri())
    links = page.eval_on_selector_all("a[href]", "all => all.map(link => link.href)")
    inside = {link for link in links if link.startswith("file:")}
    assert len(inside) > 10
    for link in inside:
        address, anchor = urldefrag(link)
        target = site / unquote(urlparse(address).path).removeprefix(f"{site}/")
        assert target.is_file(), link
        if anchor and target.suffix == ".html":
            assert f'id="{unquote(anchor)}"' in target.read_text(encoding="utf-8"), link


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(site, browser, name):
    phone = browser.new_page(viewport={"width": 375, "height": 812})
    phone.goto((site / f"{name}.html").as_uri())
    assert phone.evaluate("document.scrollingElement.scrollWidth") <= 375
    size = phone.eval_on_selector("article p", "text => parseFloat(getComputedStyle(text).fontSize)")
    assert size >= 14
    hidden = phone.eval_on_selector_all(
        "article div.math",
        "all => all.filter(one => one.scrollWidth > one.clientWidth)"
        ".map(one => getComputedStyle(one).overflowX).filter(how => how != 'auto')",
    )
    assert hidden == []  # a formula that is wider scrolls
    phone.close()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_can_be_downloaded_and_opened_elsewhere_if_it_is_published(site, page, chapter):
    page.goto((site / f"{chapter}.html").as_uri())
    links = page.eval_on_selector_all("a[href]", "all => all.map(link => link.href)")
    for place in ("colab.research.google.com", "mybinder.org"):
        there = [link for link in links if place in link and f"{chapter}.ipynb" in unquote(link)]
        assert bool(there) == ("repository" in PROJECT["urls"]), place
    (download,) = {link for link in links if link.startswith("file:") and link.endswith(".ipynb")}
    assert (site / "_sources" / f"{chapter}.ipynb").as_uri() == download


def test_formulas_are_drawn(site, page):
    page.goto((site / "07_domain_knowledge.html").as_uri())
    boxes = page.eval_on_selector_all("math", "all => all.map(formula => formula.getBoundingClientRect().width)")
    assert len(boxes) > 10 and min(boxes) > 2
    assert "\\frac" not in page.inner_text("article") and "\\sigma" not in page.inner_text("article")


def test_search_finds_grad_cam(site, page):
    page.goto((site / "search.html").as_uri() + "?q=Grad-CAM")
    page.wait_for_selector("#search-results li a")
    titles = page.eval_on_selector_all("#search-results li a", "all => all.map(link => link.textContent)")
    assert any("Explanation" in title for title in titles) and page.wrong == []
