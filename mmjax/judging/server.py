"""The pages that raters see, over HTTP: one pair at a time, answers as JSON.

A rater is a session: a random key in a cookie that scripts cannot read and other sites
cannot send. What writes needs the session's own token in a header, and comes from the
page itself by its Origin. Nothing is loaded from elsewhere. Needs mmjax[judge].
"""

import contextlib
import hashlib
import hmac
import html
import ipaddress
import json
import math
import pathlib
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from mmjax import schema
from mmjax.errors import UserError
from mmjax.judging import study as studies
from mmjax.judging.study import ASKED, QUESTIONS, Side, Study
from mmjax.judging.votes import Conflict, Votes
from mmjax.train import lock

BODY = 2048  # bytes of a request's body, at most
SESSION, ACCESS = "mmjax_rater", "mmjax_access"  # cookies
_YEAR = 365 * 24 * 3600
_HERE = pathlib.Path(__file__)
_SMALL = 128  # images of fewer pixels are shown as the squares they are
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # "no-referrer" would make every Origin null
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; script-src 'nonce-{0}'; "
    "style-src 'nonce-{0}'"
)


class Refused(Exception):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


class Application:
    """An ASGI application over the votes of a study, `app`.

    Args:
      token: What a link has to bring, for a study that other machines reach.
    """

    def __init__(
        self, folder: pathlib.Path, study: Study, votes: Votes, *, token: str = ""
    ):
        from starlette.applications import Starlette
        from starlette.routing import Route

        self.folder, self.study, self.votes = folder, study, votes
        self.token, self._key = token, votes.secret("csrf").encode()
        self._parts = {
            kind: _HERE.with_name(f"page.{kind}").read_text(encoding="utf-8")
            for kind in ("html", "css", "js")
        }
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/", self._guard(self._page), methods=get),
            Route("/begin", self._guard(self._begin), methods=post),
            Route("/state", self._guard(self._state), methods=get),
            Route("/vote", self._guard(self._vote), methods=post),
            Route("/undo", self._guard(self._undo), methods=post),
            Route("/image/{shown:int}/{side}", self._guard(self._image), methods=get),
        ]
        self.app = Starlette(routes=routes)

    def _guard(self, answer: Callable[[Any], Awaitable[Any]]) -> Callable:
        """An endpoint with safe headers, that answers `Refused` in a sentence."""
        from starlette.responses import JSONResponse

        async def endpoint(request: Any) -> Any:
            try:
                self._admit(request)
                response = await answer(request)
            except Refused as error:
                response = JSONResponse({"error": str(error)}, error.status)
            except Conflict as error:
                response = JSONResponse({"error": str(error)}, 409)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            policy = "default-src 'none'; frame-ancestors 'none'"
            response.headers.setdefault("Content-Security-Policy", policy)
            return response

        return endpoint

    def _admit(self, request: Any) -> None:
        """Raises Refused for another site's page, or a link without the token."""
        host = request.headers.get("host", "")
        if self.token:
            given = request.cookies.get(ACCESS), request.query_params.get("token")
            wanted = self.token.encode()
            if not any(hmac.compare_digest((g or "").encode(), wanted) for g in given):
                raise Refused(403, "This link is not complete: ask for the whole one.")
        elif not is_loopback(urlsplit(f"//{host}").hostname or ""):
            # a name that somebody points at this machine, to read it from their page
            raise Refused(403, f"This study is open to this machine only, not {host}.")
        if request.method == "POST":
            origin = request.headers.get("origin", "")
            if not host or urlsplit(origin).netloc != host:
                raise Refused(403, f"Requests come from {host} alone, not {origin}.")
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                raise Refused(415, f"Send application/json, not {kind or 'nothing'}.")

    def _rater(self, request: Any) -> int:
        """The rater of a request; one that writes shows the session's token too."""
        session = request.cookies.get(SESSION, "")
        rater = self.votes.rater(session) if session else None
        if rater is None:
            raise Refused(401, "This session is unknown: load the page again.")
        if request.method == "POST":
            given = request.headers.get("x-csrf-token", "")
            wanted = self._csrf(session)
            if not hmac.compare_digest(given.encode(), wanted.encode()):
                raise Refused(403, "The page is out of date: load it again.")
        return rater

    def _csrf(self, session: str) -> str:
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()

    async def _page(self, request: Any) -> Any:
        from starlette.responses import HTMLResponse, RedirectResponse

        if (
            self.token and "token" in request.query_params
        ):  # out of the address, for it is a key
            response = RedirectResponse("/", 303)
            self._cookie(response, ACCESS, self.token)
            return response
        session = request.cookies.get(SESSION, "")
        known = bool(session) and await _aside(self.votes.rater, session) is not None
        nonce = secrets.token_urlsafe(16)
        facts = {
            "csrf": self._csrf(session) if known else "",
            "asked": ASKED,
            "pixelated": self.study.side < _SMALL,
        }
        page = self._parts["html"]
        for name, text in {
            "@NONCE@": nonce,
            "@CSS@": self._parts["css"],
            "@JS@": self._parts["js"],
            "@FACTS@": html.escape(json.dumps(facts), quote=True),
        }.items():
            page = page.replace(name, text)
        policy = _POLICY.format(nonce)
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def _begin(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        await _body(request)
        session = request.cookies.get(SESSION, "")
        if not session or await _aside(self.votes.rater, session) is None:
            session = await _aside(self.votes.begin)
        rater = await _aside(self.votes.rater, session)
        state = await _aside(self.votes.state, rater)
        response = JSONResponse(state | {"csrf": self._csrf(session)})
        self._cookie(response, SESSION, session)
        return response

    async def _state(self, request: Any) -> Any:
        return await self._json(request, self.votes.state)

    async def _undo(self, request: Any) -> Any:
        await _body(request)
        return await self._json(request, self.votes.undo)

    async def _vote(self, request: Any) -> Any:
        values = await _body(request)
        try:
            shown, seconds = values["number"], float(values["seconds"])
            question, side = values["question"], values["side"]
        except (KeyError, TypeError, ValueError):
            raise Refused(400, "A vote has number, question, side, seconds.") from None
        legal = type(shown) is int and 0 < shown < 1 << 31 and math.isfinite(seconds)
        if not legal or question not in QUESTIONS or side not in ("left", "right"):
            raise Refused(400, "A vote is of a number, a question, and left or right.")
        seconds = min(max(seconds, 0.0), 1e6)
        return await self._json(
            request, self.votes.vote, shown, question, side, seconds
        )

    async def _json(self, request: Any, call: Callable, *args: Any) -> Any:
        from starlette.responses import JSONResponse

        rater = await _aside(self._rater, request)
        return JSONResponse(await _aside(call, rater, *args))

    async def _image(self, request: Any) -> Any:
        from starlette.responses import Response

        rater = await _aside(self._rater, request)
        side, shown = request.path_params["side"], request.path_params["shown"]
        stem = None
        if side in ("left", "right") and shown < 1 << 31:
            stem = await _aside(self.votes.image, rater, shown, side)
        if stem is None:
            raise Refused(404, "There is no such image.")
        path = studies.image_path(self.folder, Side(0, stem))
        return Response(await _aside(path.read_bytes), media_type="image/png")

    def _cookie(self, response: Any, name: str, value: str) -> None:
        # Lax: a link in a message still finds the session, another site's POST does not
        response.set_cookie(
            name, value, max_age=_YEAR, path="/", httponly=True, samesite="lax"
        )


async def _aside(call: Callable, *args: Any) -> Any:
    """A call that waits for the disk, in a thread."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(call, *args)


async def _body(request: Any) -> dict[str, Any]:
    """The JSON object of a request, read no further than BODY bytes."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY:
            raise Refused(413, f"A request has {BODY} bytes at most.")
    try:
        values = schema.parse_json(data)
    except ValueError:
        raise Refused(400, "This is no JSON.") from None
    if not isinstance(values, dict):
        raise Refused(400, "This is no JSON object.")
    return values


@contextlib.contextmanager
def opened(
    folder: pathlib.Path, *, host: str, target: int | None = None
) -> Iterator[Application]:
    """The application of a study, which no other server has meanwhile.

    Raises:
      UserError: there is no study, or another process serves it.
    """
    study = studies.open_study(folder)
    with lock.lock(folder, kind="study", key="STUDY"):
        votes = Votes(folder, study, target=target)
        try:
            token = "" if is_loopback(host) else votes.secret("link")
            yield Application(folder, study, votes, token=token)
        finally:
            votes.close()


def serve(
    folder: pathlib.Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8008,
    target: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serves a study until it is interrupted; `say` gets the link.

    Raises:
      UserError: see `opened`; the port is taken, or the extra `judge` is missing.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"judge serve needs {error.name}: pip install 'mmjax[judge]'"
        ) from error
    with opened(folder, host=host, target=target) as application:
        with _listen(host, port) as listening:
            name = host if host not in ("0.0.0.0", "::") else socket.gethostname()
            name = f"[{name}]" if ":" in name else name
            link = f"http://{name}:{listening.getsockname()[1]}/"
            say(link + (f"?token={application.token}" if application.token else ""))
            config = uvicorn.Config(
                application.app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=256,
                http="h11",
                ws="none",
            )
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {host}, port {port}: {error}; give another --port, or "
            "--port 0 for any that is free"
        ) from error
