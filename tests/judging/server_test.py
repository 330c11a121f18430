"""The pages over HTTP: who may ask, what is told, and what a kill leaves."""

import concurrent.futures
import contextlib
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small_studies import Rater

from mmjax import cli
from mmjax.errors import UserError
from mmjax.judging import server, votes

testclient = pytest.importorskip("starlette.testclient", reason="needs mmjax[judge]")
uvicorn = pytest.importorskip("uvicorn", reason="needs mmjax[judge]")
HERE = "http://127.0.0.1:8008"


@contextlib.contextmanager
def client(folder, host="127.0.0.1", origin=HERE):
    with server.opened(folder, host=host) as application:
        with testclient.TestClient(application.app, base_url=origin) as one:
            yield one, application


@pytest.fixture
def rater(make):
    with client(make()) as (one, _):
        yield Rater(one, HERE)


def test_a_rater_votes_undoes_and_comes_back(rater):
    state = rater.begin()
    assert (state["number"], state["question"], state["undo"]) == (1, "realism", False)
    after = rater.vote(state, "left").json()
    assert (after["number"], after["question"], after["undo"]) == (1, "match", True)
    then = rater.vote(after, "right").json()
    assert (then["number"], then["question"], then["finished"]) == (2, "realism", 1)
    assert rater.client.get("/state").json() == then
    assert rater.post("/undo", {}).json() == after
    assert rater.begin()["number"] == 1  # the same rater, by the cookie


def test_images_are_those_of_the_pair_for_its_rater_alone(rater):
    state = rater.begin()
    colours = set()
    for side in ("left", "right"):
        answer = rater.image(state, side)
        assert answer.headers["content-type"] == "image/png"
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
        colours.add(int(pixels[8, 8, 0]))
    assert colours == {40, 100}
    for path in ("/image/2/left", "/image/1/middle", f"/image/{10**30}/left"):
        assert rater.client.get(path).status_code == 404
    rater.client.cookies.clear()
    assert rater.image(state, "left").status_code == 401


def test_nothing_says_which_model_it_is(make):
    folder = make()
    with client(folder) as (one, application):
        rater = Rater(one, HERE)
        page, state = one.get("/").text, rater.begin()
        told = page + json.dumps(state) + str(rater.image(state, "left").headers)
        for model in application.study.models:
            assert model.name not in told and model.workdir not in told
        for name in os.listdir(folder / "images"):
            assert name[:-4] not in told


def test_the_page_loads_nothing_from_elsewhere(rater):
    answer = rater.client.get("/")
    policy = answer.headers["content-security-policy"]
    nonce = re.search("'nonce-(.*?)'", policy)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.text.count(f'nonce="{nonce}"') == 2
    assert not re.search(r"https?://|src=|@\w+@", answer.text)
    assert nonce not in rater.client.get("/").text  # another one each time
    for path in ("/", "/state", "/image/1/left"):
        headers = rater.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_other_sites_cannot_vote(rater):
    state = rater.begin()
    vote = {"number": 1, "question": "realism", "side": "left", "seconds": 1}
    for status, headers in (
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": ""}),
        (403, {"Origin": "http://127.0.0.1:9999"}),
        (403, {"X-CSRF-Token": ""}),
        (403, {"X-CSRF-Token": "f" * 64}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
        (403, {"Host": "evil.example"}),  # a name that was pointed at this machine
    ):
        answer = rater.post("/vote", vote, **headers)
        assert answer.status_code == status, headers
        assert answer.json()["error"]
    assert rater.client.get("/vote").status_code == 405
    assert rater.client.get("/state").json() == {
        k: v for k, v in state.items() if k != "csrf"
    }
    begun = rater.client.cookies.jar
    for cookie in begun:
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "lax"


@pytest.mark.parametrize(
    "body, status",
    [
        ("no json", 400),
        ("[1]", 400),
        ("[" * 1500, 400),
        ("x" * 5000, 413),
        (json.dumps({"number": 1}), 400),
        ({"number": 1, "question": "taste", "side": "left", "seconds": 1}, 400),
        ({"number": 1, "question": "match", "side": "both", "seconds": 1}, 400),
        ({"number": True, "question": "match", "side": "left", "seconds": 1}, 400),
        ({"number": 2**40, "question": "match", "side": "left", "seconds": 1}, 400),
        ({"number": 1, "question": "match", "side": "left", "seconds": "nan"}, 400),
        ({"number": 1, "question": [], "side": {}, "seconds": 1}, 400),
        ({"number": 1, "question": "match", "side": "left", "seconds": 1}, 409),
        ({"number": 7, "question": "realism", "side": "left", "seconds": 1}, 409),
    ],
)
def test_bad_votes(rater, body, status):
    rater.begin()
    answer = rater.post("/vote", body)
    assert answer.status_code == status and answer.json()["error"]


def test_from_other_machines_the_link_needs_its_token(make):
    folder, origin = make(), "http://lab.example:8008"
    with client(folder, "0.0.0.0", origin) as (one, application):
        token = application.token
        assert len(token) > 30
        assert one.get("/").status_code == 403
        assert one.get("/?token=wrong").status_code == 403
        assert Rater(one, origin).post("/begin", {}).status_code == 403
        page = one.get(f"/?token={token}")
        assert page.status_code == 200 and "token" not in str(page.url)
        assert Rater(one, origin).begin()["number"] == 1
    with client(folder, "0.0.0.0", origin) as (_, application):
        assert application.token == token  # links stay good
    with client(folder) as (one, application):
        assert application.token == "" and one.get("/").status_code == 200


def test_two_servers_on_one_study(make, capsys):
    folder = make()
    with server.opened(folder, host="127.0.0.1"):
        assert cli.main(["judge", "serve", str(folder), "--port", "0"]) == 2
        said = capsys.readouterr().err
        assert f"study {folder} is in use by process {os.getpid()}" in said
    with server.opened(folder, host="127.0.0.1"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: .* give another --port"):
            server.serve(folder, port=port)


# -- killed --------------------------------------------------------------------
VOTES, RATERS, KILLS = 1000, 20, 4


class Server:
    """`mmjax judge serve` as a process on one port, started again after each kill."""

    def __init__(self, folder: pathlib.Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.process = folder, None

    def start(self) -> None:
        command = [sys.executable, "-m", "mmjax.cli", "judge", "serve"]
        command += [str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert "http://" in self.process.stdout.readline()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def test_a_thousand_votes_by_twenty_raters_with_kills(make):
    """Every vote that was confirmed is there, once, as it was; a vote in flight when
    the server died is asked again and there is one of it."""
    httpx = pytest.importorskip("httpx2")
    folder = make(2, 100, votes=5)
    running = Server(folder)
    running.start()
    origin, done = f"http://127.0.0.1:{running.port}", []
    confirmed: dict[tuple[int, int, str], str] = {}

    def rate(number: int) -> int:
        rng, retries = np.random.default_rng(number), 0
        with httpx.Client(base_url=origin, timeout=20) as one:
            rater, state = Rater(one, origin), None
            for call in range(VOTES // RATERS):
                side = "left" if rng.random() < 0.5 else "right"
                while True:
                    try:
                        state = state or rater.begin()
                        answer = rater.vote(state, side)
                        break
                    except httpx.TransportError:
                        retries += 1
                        time.sleep(0.1)
                assert answer.status_code == 200, answer.text
                key = (number, state["number"], state["question"])
                confirmed[key] = side
                state = answer.json()
                done.append(call)
        return retries

    with concurrent.futures.ThreadPoolExecutor(RATERS) as pool:
        raters = [pool.submit(rate, number) for number in range(RATERS)]
        try:
            for kill in range(1, KILLS + 1):
                while len(done) < VOTES * kill // (KILLS + 1):
                    time.sleep(0.01)
                    for one in raters:
                        if one.done():
                            one.result()
                running.kill()
                running.start()
            retries = sum(one.result() for one in raters)
        finally:
            running.kill()
    assert retries >= KILLS  # it was killed while they voted
    stored = votes.read(folder)
    assert len(stored) == len(confirmed) == VOTES
    assert len({(v.rater, v.pair, v.question) for v in stored}) == VOTES
    shown = _shown(folder)
    sides = sorted(
        (shown[v.rater, v.pair][0], v.question, _side(shown[v.rater, v.pair][1], v))
        for v in stored
    )
    assert sides == sorted((n, q, side) for (_, n, q), side in confirmed.items())
    plain = {v.rater for v in stored}
    assert len(plain) == RATERS


def _shown(folder):
    import sqlite3

    with sqlite3.connect(folder / votes.FILE) as db:
        rows = db.execute("SELECT rater, pair, number, flipped FROM shown")
        return {(rater, pair): (number, flip) for rater, pair, number, flip in rows}


def _side(flipped: int, vote: votes.Vote) -> str:
    return ("left", "right")[(vote.choice == "b") != bool(flipped)]
