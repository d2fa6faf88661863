"""The report in headless Chromium: nothing sticks out on a phone, a tablet or a desk, and nothing is refused."""

import io
import json
import re
import time

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")

import browser  # noqa: E402
from report_folders import write_everything  # noqa: E402
from specreg import instruments  # noqa: E402
from specreg.instruments.page import write_page  # noqa: E402
from specreg.report import build_report  # noqa: E402

pytestmark = pytest.mark.skipif(browser.PATH is None, reason="needs chromium or chrome on the PATH; found neither")

WIDTHS = (360, 800, 1400)
OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"
# Elements that reach beyond the window, or that hold more than fits and cannot be read without scrolling them sideways.
OUTSIDE = """
[...document.querySelectorAll('body *')].filter(one => {
  const box = one.getBoundingClientRect();
  const scrolls = one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
    && getComputedStyle(one).display !== 'inline';
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5 || scrolls);
}).map(one => one.outerHTML.slice(0, 120))
"""
# Values of tables that a reader sees without the name of their column.
NAMELESS = """
[...document.querySelectorAll('td')].filter(one => one.textContent.trim() && one.checkVisibility()
  && !one.closest('table').querySelector('thead').checkVisibility()
  && getComputedStyle(one, '::before').content.length < 4).map(one => one.outerHTML)
"""


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return a report of a comparison, whose words are long and whose columns many, and one of several folders."""
    root = tmp_path_factory.mktemp("browser")
    first, second = (write_everything(root / name) for name in ("first", "second"))
    content = json.loads((first / "comparison.json").read_text())
    for k in range(5):
        name = f"an_unusually_long_name_of_a_metric_{k}"
        content["metrics"][name] = {"label": name, "better": "lower", "digits": 6}
        content["table"] += [
            {"arm": arm, "metric": name, "mean": 123456.789, "std": 0.5, "n": 2} for arm in ("none", "reg")
        ]
    content["command"] = "specreg compare " + "x" * 400
    (first / "comparison.json").write_text(json.dumps(content))
    several = build_report([first, second, second / "none: seed#0 50%"], out=root / "several.html")
    noise = np.random.default_rng(0).standard_normal((2, 40, 1, 16, 16))
    spectra = root / "spectra.html"
    write_page(instruments.spectra(*noise, names=["real", "an_unusually_long_name_of_a_set" * 3]), spectra)
    return {"one": build_report(first), "several": several, "spectra": spectra}


@pytest.mark.parametrize("name", ["one", "several", "spectra"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_sticks_out_and_nothing_is_refused(chromium, pages, name, width, dark):
    chromium.open(pages[name], width=width, dark=dark)
    chromium.run(OPEN)
    assert chromium.run("innerWidth") == width
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.run(OUTSIDE) == []
    assert chromium.run(NAMELESS) == []
    assert chromium.run("[...document.images].filter(one => !one.naturalWidth).length") == 0
    assert chromium.errors() == []
    assert chromium.requests() == []
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == dark


def test_tables_are_tables_where_there_is_room_and_blocks_on_a_phone(chromium, pages):
    display = "['.few', '.few tr', '.few td'].map(one => getComputedStyle(document.querySelector(one)).display)"
    for width, expected in ((360, ["block", "block", "flow-root"]), (800, ["table", "table-row", "table-cell"])):
        chromium.open(pages["one"], width=width)
        assert chromium.run(display) == expected


def test_phones_get_figures_whose_letters_can_be_read(chromium, pages):
    shown = "document.querySelector('.plot img').naturalWidth"
    chromium.open(pages["one"], width=1400)
    wide = chromium.run(shown)
    chromium.open(pages["one"], width=360)
    assert chromium.run(shown) < 0.6 * wide
    # Ticks are 9.5 points high in a figure of so many CSS pixels, which is as wide as its picture on the page.
    shrunk = chromium.run(
        "document.querySelector('.plot img').clientWidth / document.querySelector('.plot img').naturalWidth"
    )
    assert 9.5 * 96 / 72 * shrunk > 10


def test_details_are_closed_on_screen_and_open_in_print(chromium, pages):
    seen = "[...document.querySelectorAll('details section')].map(one => one.checkVisibility())"
    chromium.open(pages["one"], width=800)
    assert set(chromium.run(seen)) == {False}
    chromium.open(pages["one"], width=718, media="print", dark=True)
    assert set(chromium.run(seen)) == {True}
    assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run(OUTSIDE) == []
    saves = "[...document.querySelectorAll('.saves')].filter(one => one.checkVisibility()).length"
    assert chromium.run(saves) == 0
    assert chromium.pdf().startswith(b"%PDF")


def test_links_save_files_of_their_name_and_content(chromium, pages, tmp_path):
    chromium.open(pages["one"], width=800)
    chromium.send("Browser.setDownloadBehavior", session=None, behavior="allow", downloadPath=str(tmp_path))
    chromium.run("document.querySelector('a[download$=\"spectrum.csv\"]').click()")
    wanted = tmp_path / "boards-spectrum.csv"
    for _ in range(100):  # 10 s
        if wanted.exists():
            break
        time.sleep(0.1)
    assert wanted.read_text(encoding="utf-8").startswith("name,")


def test_the_tests_would_see_what_sticks_out(chromium, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><p style='width: 500px'>wide</p><script>console.error('no'); missing()</script>")
    chromium.open(page, width=360)
    assert chromium.run(OUTSIDE)
    assert len(chromium.errors()) == 2


def test_screenshots_have_colours(chromium, pages):
    """A page that lays out may still show nothing: an arm's colour is in the picture."""
    chromium.open(pages["one"], width=800)
    shot = Image.open(io.BytesIO(chromium.screenshot())).convert("RGB")
    assert (0xD5, 0x5E, 0x00) in {color for _, color in shot.getcolors(1 << 24)}
