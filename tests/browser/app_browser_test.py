"""The page of trained runs in a browser: keys, drops, screens, bad files."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import chromium
import pytest

from mmjax.data import image as image_lib
from mmjax.data.sources import open_source
from mmjax.train import config as config_lib
from mmjax.train import loop

pytest.importorskip("uvicorn", reason="needs mmjax[app]")
pytestmark = pytest.mark.browser
SCREENS = {
    "desktop": (1280, 860, False),
    "phone": (390, 844, False),
    "dark": (1280, 860, True),
}
SHOTS = os.environ.get("MMJAX_SHOTS", "")  # a folder that keeps the screenshots
RUNS = os.environ.get("MMJAX_APP_RUNS", "").split()  # of a demo, to look at its page
DONE = "document.querySelector('section:not([hidden]) .status').textContent"
WRONG = "document.querySelector('section:not([hidden]) .status.wrong') !== null"
RATIO = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((x) => x / 255).map(
    (x) => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (node) => { for (; node; node = node.parentElement) {
    const c = rgb(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3]) return c; } return [255, 255, 255]; };
  const all = document.querySelectorAll('section:not([hidden]) *, nav *');
  const ratios = [...all].filter(
    (e) => e.offsetParent && [...e.childNodes].some(
      (n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent]; });
  return ratios.sort((x, y) => x[0] - y[0])[0]; })()"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The link of `mmjax app` with a prior and a CLIP."""
    folder = tmp_path_factory.mktemp("app")
    runs = RUNS or [f"{folder}/{name}" for name in ("prior", "clip")]
    for run in [] if RUNS else runs:
        name = f"configs/{pathlib.Path(run).name}.py:tiny"
        config = config_lib.load(name, ["--config.steps=1"])
        config.evals = type(config.evals)()
        loop.run(config, pathlib.Path(run))
    command = [sys.executable, "-m", "mmjax.cli", "app", *runs, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.fixture
def page(served, tmp_path):
    if chromium.find() is None:
        pytest.skip(f"no browser: none of {', '.join(chromium.NAMES)} is on PATH")
    with chromium.browser(tmp_path / "profile") as one:
        one.screen(*SCREENS["desktop"][:2])
        one.go(served)
        one.wait("document.getElementById('notice').hidden", seconds=120)
        yield one


def open_tab(page, title):
    page.value(
        f"[...document.querySelectorAll('nav button')].find((b) => "
        f"b.textContent === '{title}').click()"
    )


def fill(page, name, text):
    field = f"section:not([hidden]) [name={name}]"
    page.value(f"document.querySelector('{field}').value = {json.dumps(text)}")


def go(page):
    page.click("section:not([hidden]) .primary")
    page.wait(f"{DONE}.startsWith('Done') || {WRONG}", seconds=60)


def drop(page, data, name="a.png"):
    """What a file dropped on the open form's first image does."""
    text = base64.b64encode(data).decode()
    page.value(
        f"(() => {{ const raw = Uint8Array.from(atob('{text}'), (c) => c.charCodeAt());"
        "const held = new DataTransfer();"
        f"held.items.add(new File([raw], '{name}'));"
        "document.querySelector('section:not([hidden]) .drop').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: held, bubbles: true, cancelable: true}));"
        "})()"
    )
    page.wait("!document.querySelector('section:not([hidden]) .clear').hidden")


def shape():
    return image_lib.encode_png(open_source("shapes:val?size=32&count=1")[0]["image"])


def test_a_prompt_by_keyboard_and_candidates_best_first(page):
    open_tab(page, "Draw")
    fill(page, "prompt", "a small red star")
    go(page)
    cards = page.value(
        "[...document.querySelectorAll('section:not([hidden]) .cards li')].map((c) => "
        "[c.score, c.querySelector('img').alt, c.querySelector('img').naturalWidth])"
    )
    assert len(cards) == 8 and all(width for *_, width in cards)
    assert [c[0] for c in cards] == sorted((c[0] for c in cards), reverse=True)
    assert all("a small red star" in alt for _, alt, _ in cards)
    page.value("document.querySelector('nav [aria-selected=true]').focus()")
    page.key("ArrowLeft")  # round to the last
    assert page.value("document.activeElement.textContent") == "Classify"
    assert page.value("document.querySelectorAll('section:not([hidden])').length") == 1
    assert page.said() == []


def test_a_dropped_image_and_labels(page):
    open_tab(page, "Classify")
    drop(page, shape())
    fill(page, "labels", "circle, square, star")
    go(page)
    text = "document.querySelector('section:not([hidden]) .said').innerText"
    assert all(name in page.value(text) for name in ("circle", "square", "star", "%"))
    labels = "document.querySelector('section:not([hidden]) [name=labels]').value"
    assert page.value(labels) == "circle, square, star"


def test_bad_files_are_told_and_the_page_goes_on(page):
    open_tab(page, "Classify")
    fill(page, "labels", "circle, square")
    go(page)
    assert "no image is given" in page.value(DONE)
    drop(page, b"no image")
    go(page)
    assert "cannot read image" in page.value(DONE)
    page.value(
        "(() => { const held = new DataTransfer();"
        "held.items.add(new File([new Uint8Array(200e6)], 'huge.png'));"
        "document.querySelector('section:not([hidden]) .drop').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: held, cancelable: true})); })()"
    )
    assert "huge.png has 200 MB, and an upload 20 at most" in page.value(DONE)
    drop(page, shape())
    go(page)
    assert page.value(DONE).startswith("Done")


def test_cancel_ends_what_waits(page):
    open_tab(page, "Draw")
    fill(page, "prompt", "a small red star")
    page.value(
        "document.querySelector('section:not([hidden]) [name=k]').selectedIndex = 4"
    )
    page.click("section:not([hidden]) .primary")
    page.click("section:not([hidden]) .quiet:not(.clear)")
    page.wait(f"{DONE} === 'Cancelled'")
    page.value(
        "document.querySelector('section:not([hidden]) [name=k]').selectedIndex = 0"
    )
    go(page)
    assert page.value(DONE).startswith("Done")


@pytest.mark.parametrize("name", SCREENS)
def test_it_fits_every_screen(page, name, tmp_path):
    width, height, dark = SCREENS[name]
    page.screen(width, height, dark=dark)
    place = pathlib.Path(SHOTS) if SHOTS else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    open_tab(page, "Draw")
    fill(page, "prompt", "a small red star above a blue ring")
    go(page)
    corner = page.screenshot(place / f"app_{name}.png")[-5:, :5].mean()
    assert corner < 60 if dark else corner > 230
    for title in ("Complete", "Classify"):
        open_tab(page, title)
        drop(page, shape())
        if title == "Complete":
            fill(page, "prompt", "a small red star")
        go(page)
        page.value("document.querySelectorAll('details').forEach((d) => d.open = true)")
        wide = "document.documentElement.scrollWidth"
        assert page.value(wide) == width
        ratio, text = page.value(RATIO)
        assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f}"
        unnamed = page.value(
            "[...document.querySelectorAll('button, img, input, select, textarea')]"
            ".filter((e) => e.offsetParent && !(e.innerText || e.alt || "
            "(e.labels && e.labels.length) || e.querySelector('img[alt]'))).length"
        )
        assert unnamed == 0
        page.value("scrollTo(0, 0)")
        page.screenshot(place / f"app_{title.lower()}_{name}.png")
    assert page.said() == []


def test_nothing_comes_from_elsewhere(page, served):
    asked = {one for one in page.requests() if not one.startswith("data:")}
    assert asked and all(one.startswith(served) for one in asked)
