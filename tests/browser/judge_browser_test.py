"""The page of a study in a browser: keys, taps, undo, a phone, a dark screen."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import chromium
import numpy as np
import pytest

from mmjax.data.sources import open_source
from mmjax.judging import study as studies
from mmjax.judging import votes

pytest.importorskip("uvicorn", reason="needs mmjax[judge]")
pytestmark = pytest.mark.browser
QUESTION = "document.getElementById('question').textContent"
COUNT = "document.getElementById('count').textContent"
READY = "!document.body.classList.contains('waiting')"
SCREENS = {
    "desktop": (1280, 860, False),
    "phone": (390, 844, False),
    "dark": (1280, 860, True),
    "phone_dark": (390, 844, True),
    "narrow": (320, 568, False),
    "turned": (740, 360, False),
}
# MMJAX_SHOTS=DIR keeps the screenshots, for people to look at.
SHOTS = os.environ.get("MMJAX_SHOTS", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A study of drawn shapes, and of the same shapes with some blur and noise."""
    source = open_source("shapes:val?size=64&count=8")
    records = [source[i] for i in range(8)]
    clean = np.stack([record["image"] for record in records])
    noise = np.random.default_rng(0).normal(0, 18, clean.shape)
    rough = (0.5 * (clean + np.roll(clean, 2, axis=2)) + noise).clip(0, 255)
    path = tmp_path_factory.mktemp("studies") / "study"
    models = [
        studies.Model(name, f"runs/{name}", 10, name, {}) for name in ("one", "two")
    ]
    prompts = [record["text"][0] for record in records]
    studies.create(path, models, prompts, [clean, rough.astype(np.uint8)])
    return path


@pytest.fixture(scope="module")
def served(folder):
    """(address, kill and start again) of `mmjax judge serve`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mmjax.cli", "judge", "serve", str(folder)]
    running = []

    def start() -> str:
        process = subprocess.Popen(
            [*command, "--port", port], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return re.search(r"http://\S+", process.stdout.readline())[0]

    def end() -> None:
        running[-1].send_signal(signal.SIGKILL)
        running[-1].wait()
        running[-1].stdout.close()

    yield start(), end, start
    end()


@pytest.fixture
def page(served, tmp_path):
    if chromium.find() is None:
        pytest.skip(f"no browser: none of {', '.join(chromium.NAMES)} is on PATH")
    with chromium.browser(tmp_path / "profile") as one:
        one.screen(*SCREENS["desktop"][:2])
        one.go(served[0])
        yield one


def begin(page):
    page.click("#begin")
    page.wait(f"{READY} && {QUESTION} !== ''")


def press(page, key, question):
    page.key(key)
    page.wait(f"{READY} && {QUESTION}.includes('{question}')")


def shot(page, name, tmp_path):
    place = pathlib.Path(SHOTS) if SHOTS else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    return page.screenshot(place / f"judge_{name}.png")


def test_a_rater_with_a_keyboard(page, folder):
    before = len(_cast(folder))
    begin(page)
    assert page.value(COUNT).startswith("Pair 1 of about")
    press(page, "ArrowLeft", "matches the caption")
    press(page, "ArrowRight", "realistic")
    assert page.value(COUNT).startswith("Pair 2 of about")
    press(page, "u", "matches the caption")
    press(page, "u", "realistic")
    assert page.value(COUNT).startswith("Pair 1 of about")
    press(page, "ArrowRight", "matches the caption")
    cast = _cast(folder)
    assert len(cast) == before + 1 and cast[-1].seconds > 0
    page.value("location.reload()")
    page.wait(f"{READY} && {QUESTION}.includes('matches the caption')")  # goes on
    assert page.said() == []


def test_clicks_to_the_last_pair_through_a_kill(page, served, folder):
    _, end, start = served
    begin(page)
    for n in range(200):
        if page.value("!document.getElementById('done').hidden"):
            break
        asked = page.value(f"{COUNT} + {QUESTION}")
        if n == 5:
            end()
        page.click("#left" if n % 3 else "#right")
        if n == 5:
            page.wait("!document.getElementById('notice').hidden")
            start()
        page.wait(f"{READY} && {COUNT} + {QUESTION} !== {asked!r}")
        assert page.value("document.getElementById('notice').hidden")
    assert 16 <= n <= 30
    assert len({(v.rater, v.pair, v.question) for v in _cast(folder)}) == len(
        _cast(folder)
    )
    page.click("#undo-last")
    page.wait(f"{READY} && !document.getElementById('pair').hidden")


@pytest.mark.parametrize("name", SCREENS)
def test_it_fits_every_screen(page, served, name, tmp_path):
    width, height, dark = SCREENS[name]
    page.screen(width, height, dark=dark)
    start = shot(page, f"{name}_start", tmp_path)
    begin(page)
    pair = shot(page, name, tmp_path)
    for pixels in (start, pair):
        corner = pixels[-5:, :5].mean()
        assert corner < 60 if dark else corner > 230
        assert pixels.std() > 10
    root = page.value(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert root == [width, width]
    boxes = page.value(
        "['left', 'right'].map((s) => { const r = document.getElementById(s)"
        ".getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; })"
    )
    for left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0 and right <= width and right - left > 100
        assert bottom <= height, "both images are seen without scrolling"
    assert boxes[0][2] < boxes[1][0] and boxes[0][1] == boxes[1][1]
    assert page.said() == []


def test_it_says_what_it_is_to_those_who_do_not_see_it(page, served):
    begin(page)
    alts = page.value("[...document.images].map((i) => [i.alt, i.naturalWidth])")
    assert alts == [["Left image", 64], ["Right image", 64]]
    assert page.value("document.documentElement.lang") == "en"
    unnamed = page.value(
        "[...document.querySelectorAll('button')].filter((b) => "
        "!b.innerText.trim() && b.offsetParent).length"
    )
    assert unnamed == 0
    contrast = page.value("getComputedStyle(document.getElementById('question')).color")
    assert contrast == "rgb(29, 35, 41)"
    asked = {address for address in page.requests() if not address.startswith("data:")}
    assert asked and all(address.startswith(served[0]) for address in asked)
    text = page.value("document.documentElement.outerHTML")
    assert "runs/" not in text and "one" not in re.findall(r'"(\w+)"', text)


def _cast(folder):
    try:
        return votes.read(folder)
    except Exception as error:
        assert "no votes yet" in str(error)
        return []
