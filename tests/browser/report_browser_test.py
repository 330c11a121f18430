"""The report in a browser off the network: drawn, no errors, no wider than a screen."""

import json
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from mmjax.claims import compare, results, spec
from mmjax.claims import measure as measure_lib
from mmjax.data.shapes.scene import CLASS_NAMES
from mmjax.data.sources import open_source
from mmjax.report import figures, image_grid, ranked_labels, run_page
from mmjax_demo import report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars --enable-logging=stderr "
    "--allow-file-access-from-files --virtual-time-budget=5000 "
    # off the network: no name resolves, and what needs none meets a closed port
    "--proxy-server=http://127.0.0.1:9 --proxy-bypass-list=<-loopback>"
).split()
WIDTHS = (390, 1280)  # a telephone's and a desk's
PHONE, DESK = WIDTHS

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """(arguments) -> the finished process of Chromium with a profile of its own."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        profile = tmp_path_factory.mktemp("profile")
        command = [found, *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120
        )

    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> pathlib.Path:
    """A full report, its pictures of the size that a demo's have."""
    return report.write(full_workdir(tmp_path_factory.mktemp("demo")))


def full_workdir(workdir: pathlib.Path) -> pathlib.Path:
    """Everything a demo leaves, with invented numbers."""
    _pictures(workdir)
    for run, (first, last, steps) in _RUNS.items():
        (workdir / run).mkdir()
        rows = []
        for step in range(steps // 40, steps + 1, steps // 40):
            fall = math.exp(-6 * step / steps)
            rate = 700 + 40 * math.sin(step) if rows else 90
            loss = last + (first - last) * fall
            rows.append({"step": step, "loss": loss, "rows_per_second": rate})
        rows.append({"step": steps, "val/loss": 1.1 * last})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (workdir / run / "metrics.jsonl").write_text(lines)
    summary = {name: value for name, value in _banded(_SUMMARY).items()}
    summary |= {f"minutes_{name}": 1.5 * n for n, name in enumerate(_STAGES, 1)}
    summary |= {"minutes": 31.5, "cores": 2, "devices": 1}
    summary["a_number_nobody_described_" + "with_a_long_name_" * 4] = 0.1234
    (workdir / "summary.json").write_text(json.dumps(summary))
    (workdir / "results.json").write_text(json.dumps(_results()))
    return workdir


_STAGES = ("clip", "tokenizer", "tokens", "prior", "samples", "judge")
_RUNS = {
    "clip": (5.5, 0.3, 840),
    "tokenizer": (0.4, 0.006, 1520),
    "prior": (5.9, 2.1, 1800),
}
_SUMMARY = {
    "zero_shot_val": 0.995,
    "zero_shot_unseen": 0.982,
    "retrieval_r1": 0.849,
    "retrieval_text_to_image_r1": 0.736,
    "psnr": 27.8,
    "code_usage": 0.97,
    "prior_image_nats": 1.62,
    "oracle_k1": 0.61,
    "oracle_k8": 0.79,
    "oracle_k64": 0.86,
    "oracle_unseen_k1": 0.42,
    "oracle_unseen_k8": 0.66,
    "oracle_unseen_k64": 0.78,
    "completion_oracle": 0.71,
}


def _banded(values: dict) -> dict:
    """With intervals of 3 % to both sides."""
    found = {}
    for name, value in values.items():
        high = min(1.03 * value, max(value, 1))
        ends = {f"{name}_lo": 0.97 * value, f"{name}_hi": high}
        found |= {name: value, **ends}
    return found


def _results() -> dict:
    pools, curves = [1, 8, 64], {}
    for split, base in (("val", 0.55), ("unseen", 0.4)):
        curves[split] = {"k": pools}
        for n, name in enumerate(
            ("all", "colour", "shape", "size", "relation", "count", "background")
        ):
            shares = [1 - (1 - base) * (0.7 - 0.08 * n) * 0.6**i for i in range(3)]
            curves[split] |= {name: shares}
            curves[split][f"{name}_lo"] = [0.96 * share for share in shares]
            curves[split][f"{name}_hi"] = [min(1.03 * s, 1.0) for s in shares]
    edges = np.linspace(0.1, 0.7, 31)
    middle = (edges[1:] + edges[:-1]) / 2
    judges = {
        f"{split}_oracle_{name}_k{k}": curve[name][i]
        for split, curve in curves.items()
        for name in ("all", "colour", "shape")
        for i, k in enumerate(pools)
    }
    judges |= {"val_clip_score": 41.2, "val_clip_score_best64": 55.1}
    judges |= {"clip_fid": 0.031, "clip_inception_score": 38.4}
    judges |= {"nearest": 0.081, "nearest_real": 0.079, "near": 0.045, "copies": 0.005}
    card = {"step": 850, "evaluator": "zero_shot", "source": {"name": "x" * 300}}
    return {
        "code_counts": [int(4000 * 0.985**n) if n < 250 else 0 for n in range(256)],
        "k_curve": curves,
        "clip_scores": {
            "edges": edges.tolist(),
            "first": np.round(40 * np.exp(-(((middle - 0.41) / 0.1) ** 2))).tolist(),
            "best": np.round(60 * np.exp(-(((middle - 0.55) / 0.06) ** 2))).tolist(),
        },
        "judges": _banded(judges),
        "cards": {"clip/val": card, "clip/retrieval": card},
        "about": {"python": "3.11.7", "jax": "0.10.2", "cores": 2, "seed": 0},
    }


def _pictures(workdir: pathlib.Path) -> None:
    source = open_source("shapes:val?size=32&count=96")
    records = [source[i] for i in range(len(source))]
    images = [record["image"] for record in records]
    texts = [record["text"][0] for record in records]
    for name in ("samples_first", "samples_best", "unseen_best"):
        rows = [images[8 * r : 8 * r + 8] for r in range(8)]
        image_grid.draw(workdir / f"{name}.png", rows, texts[:8])
    rows = [images[:16], images[:16]]
    captions = ["held-out images", "the same from their tokens"]
    image_grid.draw(workdir / "reconstructions.png", rows, captions)
    rows = [[images[p], images[p], images[p + 1]] for p in range(8)]
    image_grid.draw(workdir / "completions.png", rows, texts[:8])
    scores = np.random.default_rng(0).dirichlet(np.full(64, 0.05), 12)
    ranked_labels.ranked(workdir / "zero_shot.png", images[:12], CLASS_NAMES, scores)


def console(done: subprocess.CompletedProcess) -> list[str]:
    """What pages wrote to the console, and failed to load."""
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def screenshot(browse, page: pathlib.Path, width: int, path: pathlib.Path):
    """The finished process, and the top of a page as it is drawn, (h, w, 3)."""
    size = f"--window-size={width},3000"
    done = browse(size, f"--screenshot={path}", page.as_uri())
    return done, np.asarray(Image.open(path).convert("RGB"))


def drawn(pixels: np.ndarray) -> float:
    """The share of rows of 10 pixels with something in them."""
    bands = pixels[: len(pixels) // 10 * 10].reshape(-1, 10 * pixels.shape[1], 3)
    return float(np.mean(bands.astype(float).std(1).max(1) > 4))


# In a frame of that width, measured from outside: what the page's root scrolls to, and
# how far right anything reaches that has no scroller of its own.
_PROBE = """<!doctype html><meta charset="utf-8"><body>
<iframe id="frame" src="%s" style="width:%dpx;height:900px;border:0"></iframe>
<pre id="said">unread</pre><script>
document.getElementById("frame").onload = (event) => {
  const inside = event.target.contentDocument, root = inside.documentElement;
  for (const part of inside.querySelectorAll("details")) part.open = true;
  const free = [...inside.querySelectorAll("body *")].filter(
    (e) => !e.closest("pre, .scroll > *") && e.getClientRects().length);
  const reach = Math.max(...free.map((e) => e.getBoundingClientRect().right));
  const pictures = [...inside.images];
  document.getElementById("said").textContent = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, reach, parts: free.length,
    text: inside.body.innerText.length,
    broken: pictures.filter((image) => !image.naturalWidth).length,
    pictures: pictures.length});
};
</script></body>"""


def measure(browse, page: pathlib.Path, width: int) -> dict:
    """The layout of a page at a width."""
    probe = page.with_name(f"probe_{page.stem}_{width}.html")
    probe.write_text(_PROBE % (page.name, width))
    done = browse("--window-size=1400,1000", "--dump-dom", probe.as_uri())
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.S)[1]
    assert said != "unread", done.stderr
    return json.loads(said)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_drawn_without_errors(browse, page, width, tmp_path):
    done, pixels = screenshot(browse, page, width, tmp_path / "shot.png")
    assert console(done) == []
    assert len(pixels) == 3000
    assert drawn(pixels) > 0.5


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(browse, page, width):
    seen = measure(browse, page, width)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["reach"] <= width
    assert seen["parts"] > 200 and seen["text"] > 5000
    assert seen["pictures"] == 6 and seen["broken"] == 0


def test_a_report_of_nothing_is_drawn_too(browse, tmp_path):
    done, pixels = screenshot(browse, report.write(tmp_path), PHONE, tmp_path / "s.png")
    assert console(done) == []
    assert drawn(pixels) > 0.2


def other_pages(folder: pathlib.Path) -> list[pathlib.Path]:
    """The pages of a run, of runs compared and of a claim, with invented numbers."""
    rng, long = np.random.default_rng(0), "data.train=" + "shapes:train?size=32&" * 9
    arms = [f"{long[:60]},lr={lr}" for lr in (0.1, 0.2, 0.3, 0.4)]
    groups, found = [], {}
    for arm in arms:
        work = folder / arm[-6:]
        work.mkdir()
        rows = [{"step": s, "loss": 9 / s, "val/top1": s / 99} for s in range(1, 90)]
        (work / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        groups.append(compare.Group(arm, {"optim": {"lr": arm[-3:]}}, {0: work}))
        draws = {seed: float(rng.uniform()) for seed in range(3)}
        found[arm] = {
            seed: {"val/top1": measure_lib.Number(v, 0.02)} for seed, v in draws.items()
        }
    pages = [folder / f"{name}.html" for name in ("compare", "claim", "run")]
    pages[0].write_text(compare.page(groups, found, ["val/top1"]))
    check = spec.Check("the first is above", "difference", tuple(arms[:2]), "val/top1")
    claim = spec.Experiment("One is above another.", "a paper", checks=(check,))
    result = results.summarise(claim, [], found, "small")
    image = figures.save(results.figure(result), folder / "results.png")
    pages[1].write_text(results.page(result, "claim", image, "mmjax reproduce"))
    text = run_page.document(
        "clip: run",
        "A run.",
        images=[image],
        rows=rows,
        values={"val/top1": 0.5, "val/top1_lo": 0.4, "val/top1_hi": 0.6},
        cards={"val": {"source": "x" * 300}},
        config=f"--config.{long * 3}",
    )
    pages[2].write_text(text)
    return pages


def test_pages_of_runs_comparisons_and_claims(browse, tmp_path):
    for page in other_pages(tmp_path):
        for width in WIDTHS:
            done, pixels = screenshot(browse, page, width, tmp_path / "shot.png")
            assert console(done) == [] and drawn(pixels) > 0.1, page
            seen = measure(browse, page, width)
            assert seen["scroll"] <= width and seen["reach"] <= width, (page, width)
            assert seen["broken"] == 0
        text = page.read_text()
        assert "prefers-color-scheme: dark" in text
        assert not re.search(r"<img(?![^>]*alt=)|<svg(?![^>]*aria-label=)", text)


def test_the_checks_see_what_is_wrong(browse, tmp_path):
    blank, wrong = tmp_path / "blank.html", tmp_path / "wrong.html"
    blank.write_text("<!doctype html><title>nothing</title>")
    _, pixels = screenshot(browse, blank, DESK, tmp_path / "blank.png")
    assert drawn(pixels) == 0
    wrong.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width">'
        '<div style="width:900px">wide</div><img src="https://example.org/a.png">'
        '<script>console.error("said")</script>'
    )
    done, _ = screenshot(browse, wrong, DESK, tmp_path / "wrong.png")
    assert any("said" in line for line in console(done))
    seen = measure(browse, wrong, PHONE)
    assert seen["scroll"] > PHONE and seen["reach"] > PHONE
    assert seen["pictures"] == seen["broken"] == 1


def test_the_page_may_load_nothing_from_elsewhere(browse, page, tmp_path):
    spoiled = tmp_path / "spoiled.html"
    text = page.read_text(encoding="utf-8")
    more = '<img src="https://example.org/a.png"><script>console.log("ran")</script>'
    spoiled.write_text(text.replace("<main>", f"<main>{more}"), encoding="utf-8")
    done, _ = screenshot(browse, spoiled, DESK, tmp_path / "spoiled.png")
    said = "\n".join(console(done))
    assert said.count("Content Security Policy") >= 2 and '"ran"' not in said
