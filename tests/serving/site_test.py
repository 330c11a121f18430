"""What every page asks of a request; tests of the pages themselves have the rest."""

import pytest

from mmjax.errors import UserError
from mmjax.serving import site

testclient = pytest.importorskip("starlette.testclient", reason="needs mmjax[app]")
HERE = "http://127.0.0.1:8009"
SENT = {"Origin": HERE, "Content-Type": "application/json"}


def client(raised=None, **kwargs):
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse

    one = site.Site("page", statuses={UserError: 400}, **kwargs)

    async def answer(request):
        if raised:
            raise raised
        return JSONResponse(await one.read(request))

    app = Starlette(routes=[one.route("/", answer, "POST")])
    return testclient.TestClient(app, base_url=HERE)


def test_hosts():
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"):
        assert site.is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.7", "localhost.evil.example", ""):
        assert not site.is_loopback(host)


def test_a_body_is_refused_by_its_length_before_it_is_read():
    with client(body=20) as one:
        assert one.post("/", content=b'{"a": 1}', headers=SENT).json() == {"a": 1}
        for size, told in ((21, None), (2, "200000000")):
            headers = SENT | ({"Content-Length": told} if told else {})
            answer = one.post("/", content=b"x" * size, headers=headers)
            assert answer.status_code == 413
            assert answer.json()["error"] == "A request has 20 bytes at most."
        chunks = (b"x" * 15 for _ in range(3))  # of a length that is not told
        assert one.post("/", content=chunks, headers=SENT).status_code == 413


def test_errors_by_their_kind():
    with client(UserError("give 1 or more")) as one:
        answer = one.post("/", content=b"{}", headers=SENT)
        assert answer.status_code == 400 and answer.json()["error"] == "give 1 or more"
    with client(site.Refused(429, "later")) as one:
        assert one.post("/", content=b"{}", headers=SENT).status_code == 429
