"""The page over HTTP: what it offers, computes and refuses, and as the commands do."""

import base64
import dataclasses
import io
import json
import pathlib
import re
import types

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.app import fields, server, tools
from mmjax.app.line import Line
from mmjax.errors import UserError
from mmjax.inference import answer, caption, generate, load
from mmjax.retrieval import gallery, store
from mmjax.sampling import autoregressive
from mmjax.train import config as config_lib
from mmjax.train import setup

testclient = pytest.importorskip("starlette.testclient", reason="needs mmjax[app]")
HERE = "http://127.0.0.1:8009"
SENT = {"Origin": HERE, "Content-Type": "application/json"}
PROMPT, NAN = "a red star", [["a", float("nan")]]


def untrained(name, state=None):
    """A run of the tiny preset at step 0, of no folder: what costs is training."""
    config = config_lib.load(f"configs/{name}.py:tiny", [])
    parts = setup.build(config)
    if state is None:
        state = jax.jit(parts.update.init)(jax.random.key(0), parts.sample())
    run = load.Run(pathlib.Path("runs") / name, parts, state)
    vars(run)["config"] = config
    return run


@pytest.fixture(scope="module")
def runs(tiny_run):
    return [untrained("prior"), load.load_run(tiny_run)]


@pytest.fixture(scope="module")
def index(tmp_path_factory, runs):
    out = tmp_path_factory.mktemp("app") / "index"
    gallery.build_gallery(runs[1], "shapes:val?size=16&count=6", out)
    return store.open_store(out)


@pytest.fixture(scope="module")
def page(runs, index):
    """A client of the page, after all is compiled."""
    line = Line(most=5)
    listed = server.offered(runs, index=index)
    application = server.Application(listed, line)
    with testclient.TestClient(application.app, base_url=HERE) as client:
        line._thread.submit(int).result()  # behind those that compile
        assert client.get("/state").json() == {"compiling": [False] * len(listed)}
        yield client
    line.close()


def ask(page, title, **values):
    """(events of a kind in order, all by kind) of a tool, as the page asks it."""
    answer = page.post(f"/ask/{tool(page, title)}", json=values, headers=SENT)
    assert answer.status_code == 200, answer.text
    told = {}
    for line in answer.text.splitlines():
        event = json.loads(line)
        told.setdefault(next(iter(event)), []).append(next(iter(event.values())))
    return told


def facts(page):
    text = re.search('data-facts="(.*?)"', page.get("/").text)[1]
    return json.loads(text.replace("&quot;", '"').replace("&#x27;", "'"))["tools"]


def tool(page, title):
    return [tool["title"] for tool in facts(page)].index(title)


def form(page, title):
    return {f["name"]: f for f in facts(page)[tool(page, title)]["fields"]}


def upload(pixels, kind="PNG", **more):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return base64.b64encode(file.getvalue()).decode()


def pixels(card):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(card["image"]))))


def photo(size=16):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (size, size, 3)).astype(np.uint8)


def test_what_it_offers_follows_from_what_the_runs_predict(page, runs):
    assert [(t["title"], t["run"]) for t in facts(page)] == [
        ("Draw", str(runs[0].workdir)),
        ("Complete", str(runs[0].workdir)),
        ("Classify", str(runs[1].workdir)),
        ("Search", str(runs[1].workdir)),
    ]
    named = form(page, "Draw")
    options = {name: f for name, f in named.items() if f["option"]}
    assert {name: f["value"] for name, f in options.items()} == {
        **generate.Generator(runs[0]).options
    }
    assert options["top_k"]["about"].startswith("only the k most probable tokens")
    assert "negative" not in named and named["prompt"]["examples"]


def test_the_same_image_as_the_command_draws(page, runs, tmp_path, monkeypatch):
    drawn = ask(page, "Draw", prompt=PROMPT, k=8, seed=3)
    assert [event["caption"] for event in drawn["card"]] == [
        f"candidate {n}" for n in range(8)
    ]
    assert "error" not in drawn and drawn["done"][0] > 0
    kept = {}
    monkeypatch.setattr(load, "load_run", lambda *args: runs[0])
    monkeypatch.setattr(
        "mmjax.report.image_grid.draw",
        lambda out, rows, said: kept.update(r=rows) or out,
    )
    command = ["sample", str(runs[0].workdir), PROMPT, "-k", "4", "--seed", "3"]
    command += ["--batch", "4"]  # as the page does: compiled once
    assert cli.main([*command, "--out", str(tmp_path / "x.png")]) == 0
    for shown, image in zip(drawn["card"], kept["r"][0], strict=False):
        np.testing.assert_array_equal(pixels(shown), image)
    told = json.loads((tmp_path / "x.json").read_text())["prompts"][0]["shown"]
    images = [pixels(shown) for shown in drawn["card"][:3]]
    scores = runs[1].embed_images(images) @ runs[1].embed_texts([PROMPT])[0]
    for shown, score, row in zip(drawn["card"], scores, told, strict=False):
        assert shown["by"] == "CLIP"
        assert shown["score"] == pytest.approx(score, abs=1e-5)
        assert "log_prob" in row


def test_options_compile_once_and_the_oldest_are_let_go():
    task = types.SimpleNamespace(sampling=autoregressive.Sampling())
    made, told = [], []
    held = tools.Held(lambda changed: made.append(changed) or len(made), task)
    values = {f.name: f.value for f in held.fields}
    for temperature in (1.0, 0.5, 1.0, 0.5, 0.4, 0.3, 0.2, 0.5, 1.0):
        given = values | {"temperature": temperature, "k": 3}
        held.take(given, told.append)
        assert given == {"k": 3}
    changed = [{"temperature": t} for t in (0.5, 0.4, 0.3, 0.2)]
    assert made == [{}, *changed, {}] and len(told) == len(made)


def test_a_lower_half_is_drawn_and_the_upper_is_kept(page, runs):
    image = photo()
    drawn = ask(page, "Complete", image=upload(image), prompt=PROMPT, k=4)
    given, *cards = drawn["card"]
    np.testing.assert_array_equal(pixels(given)[:8], image[:8])
    known = np.arange(16)[:, None] < np.full(16, 8)
    wanted = generate.Generator(runs[0]).complete([image], [PROMPT], known=known, k=4)
    for shown, candidate in zip(cards, wanted.images[0], strict=True):
        np.testing.assert_array_equal(pixels(shown), candidate)


def test_labels_and_search(page, runs, index):
    image = photo()
    bars = ask(page, "Classify", image=upload(image), labels="a, b\nc")
    bars = bars["bars"][0]
    wanted = runs[1].classify([image], ["a", "b", "c"], runs[1].templates())
    assert dict(bars) == pytest.approx(
        dict(zip(["a", "b", "c"], wanted[0].tolist(), strict=True)), abs=1e-4
    )
    long = ask(page, "Classify", image=upload(image), labels="a, " + "b " * 60)
    assert long["note"][0].startswith("Shorten b b b") and len(long["bars"][0]) == 2
    assert [share for _, share in bars] == sorted(dict(bars).values(), reverse=True)
    searched = gallery.Gallery(index, runs[1])
    third = searched.source[3]["image"]
    found = ask(page, "Search", image=upload(third))["card"]
    np.testing.assert_array_equal(pixels(found[0]), third)
    assert found[0]["score"] == pytest.approx(1, abs=1e-3) and len(found) == 6
    by_text = ask(page, "Search", text=PROMPT)["card"]
    hits = searched.search(runs[1].embed_texts([PROMPT]), 6)[0]
    assert [shown["caption"] for shown in by_text] == [hit.text[0] for hit in hits]


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes, by its header."""
    whole = bytearray(base64.b64decode(upload(photo(4))))
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    return base64.b64encode(bytes(whole)).decode()


@pytest.mark.parametrize(
    ("title", "values", "said"),
    [
        ("Draw", {"prompt": " "}, "the prompt is empty: say what"),
        ("Draw", {"prompt": "red " * 60}, "has .* tokens .* reads 16: shorten it"),
        ("Draw", {"prompt": PROMPT, "k": 9}, "Candidates is 9: use one of 4, 8, 16"),
        ("Draw", {"prompt": 3}, "Prompt is 3: give a text"),
        ("Draw", {"prompt": PROMPT, "seed": True}, "Seed is True: give a number"),
        ("Draw", {"prompt": PROMPT, "top_p": 2}, "top_p is 2.* use more than 0"),
        ("Draw", {"prompt": PROMPT, "steps": 2}, "this form has no 'steps'"),
        ("Complete", {"prompt": PROMPT}, "no image is given: drop one"),
        ("Complete", {"prompt": PROMPT, "image": [1]}, "Image is not in base64"),
        ("Classify", {"image": "bm8gaW1hZ2U=", "labels": "a,b"}, "it is none of AVIF"),
        ("Classify", {"image": bomb(), "labels": "a,b"}, "cannot read image"),
        ("Classify", {"image": upload(photo()), "labels": "a"}, "give two or more"),
        ("Search", {}, "the text is empty"),
        ("Search", {"text": "a " * 60}, "shorten it"),
    ],
)
def test_bad_input_is_answered_and_the_page_goes_on(page, title, values, said):
    told = ask(page, title, **values)
    assert re.search(said, told["error"][0]), told
    assert "card" not in told and "bars" not in told
    assert page.get("/").status_code == 200


def test_an_upload_that_is_too_large(page, monkeypatch):
    headers = SENT | {"Content-Length": "200000000"}
    answer = page.post("/ask/2", content=b"{", headers=headers)
    assert answer.status_code == 413 and "bytes at most" in answer.json()["error"]
    monkeypatch.setattr(fields, "LIMIT", 100)
    told = ask(page, "Classify", image=upload(photo()), labels="a,b")
    assert re.search("Image has 0 MB, and an upload", told["error"][0])


def test_photos_stand_upright(page):
    """A JPEG on its side by EXIF is seen as the upright one is."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned = upload(np.rot90(image), "JPEG", quality=100, exif=exif)
    shares = [
        dict(ask(page, "Classify", image=one, labels="a, b")["bars"][0])
        for one in (turned, upload(image, "JPEG", quality=100))
    ]
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)


def test_only_the_page_itself_asks(page):
    for status, headers in (
        (403, {"Origin": "http://evil.example"}),
        (403, {"Host": "evil.example"}),
        (415, {"Content-Type": "text/plain"}),
    ):
        answer = page.post("/ask/0", content=b"{}", headers=SENT | headers)
        assert answer.status_code == status
    assert page.post("/ask/9", content=b"{}", headers=SENT).status_code == 404
    assert page.post("/ask/0", content=b"[]", headers=SENT).status_code == 400
    policy = page.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"https?://|@\w+@", page.get("/").text)


def test_examples_are_images_of_the_runs_data(page):
    answer = page.get(f"/example/{tool(page, 'Classify')}/image/0")
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    for path in ("/example/9/image/0", "/example/2/image/7", "/example/2/labels/0"):
        assert page.get(path).status_code == 404


def test_a_full_line_says_so(runs):
    line = Line(most=0)
    application = server.Application([], line)
    application.tools = server.offered(runs[:1])
    with testclient.TestClient(application.app, base_url=HERE) as client:
        answer = client.post("/ask/0", json={}, headers=SENT)
        assert answer.status_code == 503 and "try again" in answer.json()["error"]
    line.close()


def test_runs_and_indexes_that_do_not_fit(runs, index, tmp_path, capsys):
    model = index.facts.model | {"fingerprint": "aa"}
    facts = dataclasses.replace(index.facts, model=model)
    other = dataclasses.replace(index, facts=facts)
    with pytest.raises(UserError, match="was made by weights aa .* search it with"):
        server.offered(runs, index=other)
    with pytest.raises(UserError, match="give .* as a run too"):
        server.offered(runs[:1], index=index)
    assert cli.main(["app", str(tmp_path / "none"), "--port", "0"]) == 2
    assert "none" in capsys.readouterr().err
    assert cli.main(["app", str(tmp_path / "none"), "--batch", "0"]) == 2
    assert "give a batch of 1 or more" in capsys.readouterr().err


def test_captions_and_answers(monkeypatch):
    """What is shown of them; tests of the commands have the models' part."""
    said = [["a star", "a ring"]], {"score": np.array([[-1.5, -2.0]])}
    answers = [(f"answer {n}", 1 / 9) for n in range(9)]
    monkeypatch.setattr(caption.Captioner, "say", lambda self, images: said)
    monkeypatch.setattr(answer.Answerer, "ask", lambda self, *given: answers)
    listed = server.offered([untrained(name, ()) for name in ("vqa", "caption")])
    assert [tool.title for tool in listed] == ["Ask", "Caption"]
    told = []
    given = {"image": upload(photo()), "question": "is it red?"}
    listed[0].work(given)(told.append)
    assert told == [{"bars": answers[:8]}]
    listed[1].work({"image": upload(photo())})(told.append)
    assert told[-2:] == [
        {"text": "a star", "score": -1.5},
        {"text": "a ring", "score": -2.0},
    ]
    with pytest.raises(UserError, match="the question is empty"):
        listed[0].work(given | {"question": ""})(told.append)


def test_broken_weights_do_not_break_the_page(runs):
    nan = tools.Tool("Break", runs[0], "", (), lambda values, tell: tell({"bars": NAN}))
    line = Line()
    with testclient.TestClient(
        server.Application([nan], line).app, base_url=HERE
    ) as client:
        assert "go back to an earlier checkpoint" in ask(client, "Break")["error"][0]
    line.close()
