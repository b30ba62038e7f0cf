"""The page in a browser without a network: nothing is asked for, no error, what can be moved moves."""

import os
import shutil

import pytest

from diffusion.report import page
from tests.helpers.run_folder import run_folder, write_result

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens a page; at the end there was no other request, no error and no alert."""
    reported, asked = [], []
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 800})
    tab = context.new_page()
    tab.on("console", lambda message: reported.append(message.text))
    tab.on("pageerror", lambda error: reported.append(str(error)))
    tab.on("dialog", lambda dialog: (reported.append("a dialog"), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))

    def open_(path):
        tab.goto(path.absolute().as_uri())
        return tab

    yield open_
    context.close()
    assert reported == []
    assert [url for url in asked if not url.startswith("data:")] == asked[:1]


def test_the_slider_moves(opened, tmp_path):
    tab = opened(page.write([run_folder(tmp_path / "run")]))
    slider, caption = tab.locator("input[type=range]"), tab.locator(".album output")
    assert caption.inner_text() == "step 300, epoch 6"
    shown = tab.locator(".album .pictures:visible img").first
    last = shown.get_attribute("src")
    slider.focus()
    for _ in range(5):
        tab.keyboard.press("ArrowLeft")
    assert caption.inner_text() == "step 50, epoch 1"
    assert tab.locator(".album .pictures:visible").count() == 1
    assert shown.get_attribute("src") != last
    assert shown.evaluate("image => image.complete && image.naturalWidth") == 24


def test_a_curve_is_zoomed_by_dragging_and_back_by_a_double_click(opened, tmp_path):
    tab = opened(page.write([run_folder(tmp_path / "run")]))
    assert tab.locator(".chart canvas").count() == 2
    over = tab.locator(".chart .u-over").first
    whole = over.screenshot()
    box = over.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 50, steps=5)
    tab.mouse.up()
    tab.mouse.move(0, 0)
    tab.wait_for_timeout(100)
    assert over.screenshot() != whole
    over.dblclick(position={"x": 100, "y": 50})
    tab.mouse.move(0, 0)
    tab.wait_for_timeout(100)
    assert over.screenshot() == whole


def test_a_table_is_sorted_by_number(opened, tmp_path):
    folders = [run_folder(tmp_path / name, losses=[loss]) for name, loss in (("a", 0.5), ("b", 10.0), ("c", 9.0))]
    write_result(folders[1], metric="bpd", value=2.5)
    tab = opened(page.write(folders))
    names = tab.locator("table.sortable").first.locator("tbody tr td:first-child")
    for press, order in (("val/loss", "acb"), ("val/loss", "bca"), ("bpd", "bca"), ("run", "abc")):
        tab.get_by_role("button", name=press, exact=True).first.click()
        assert "".join(names.all_inner_texts()) == order, press


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_text_of_a_run_is_executed(opened, tmp_path):
    hostile = "<img src=x onerror=alert(1)><script>alert(2)<script>"
    folder = run_folder(tmp_path / hostile, command=f"train.py {hostile}")
    (folder / "metrics.csv").write_text(f"step,{hostile}\n1,2\n2,3\n")
    write_result(folder, metric=hostile, value=hostile, summary=hostile)
    tab = opened(page.write([folder, run_folder(tmp_path / "other")]))
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert tab.title() == "2 runs"
    assert tab.get_by_text(hostile).count() > 3


@pytest.mark.parametrize("several", [False, True])
def test_a_phone_shows_it_without_scrolling_aside(several, opened, tmp_path):
    folders = [run_folder(tmp_path / name, size=400) for name in ("one", "two")[: 1 + several]]
    tab = opened(page.write(folders))
    tab.set_viewport_size({"width": 360, "height": 640})
    tab.wait_for_timeout(100)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_it_prints_with_all_of_it_open(opened, tmp_path):
    tab = opened(page.write([run_folder(tmp_path / "run")]))
    assert tab.pdf(format="A4").startswith(b"%PDF")
    assert tab.locator("details:not([open])").count() == 0
