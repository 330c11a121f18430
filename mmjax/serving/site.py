"""What the pages share that mmjax serves: who may ask, how much, and from where.

A page is open to this machine alone; one that other machines reach wants the token of
its link, once, and then a cookie that scripts cannot read and other sites cannot send.
What writes is JSON from the page itself, by its Origin. Nothing is loaded from
elsewhere. Needs Starlette and uvicorn, mmjax[app] or mmjax[judge].
"""

import contextlib
import dataclasses
import hmac
import html
import ipaddress
import json
import pathlib
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from mmjax import schema
from mmjax.errors import UserError

ACCESS = "mmjax_access"  # the cookie that stands for the link's token
_YEAR = 365 * 24 * 3600
_GRACE = 3  # seconds that open answers have once the server is asked to end
_HERE = pathlib.Path(__file__)
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


@dataclasses.dataclass(frozen=True)
class Site:
    """The rules of one page's requests.

    name: What is served, for messages: "study".
    token: What a link has to bring where other machines reach the page.
    body: Bytes of a request's body, at most.
    statuses: By the exceptions that are answered in their own sentence, the status.
    """

    name: str
    token: str = ""
    body: int = 2048
    statuses: Mapping[type[Exception], int] = dataclasses.field(default_factory=dict)

    def route(
        self, path: str, answer: Callable[[Any], Awaitable[Any]], method: str = "GET"
    ) -> Any:
        """A route with safe headers, which answers what is refused in a sentence."""
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def endpoint(request: Any) -> Any:
            try:
                self._admit(request)
                response = self._without_token(request) or await answer(request)
            except Refused as error:
                response = JSONResponse({"error": str(error)}, error.status)
            except tuple(self.statuses) as error:
                status = next(
                    s for e, s in self.statuses.items() if isinstance(error, e)
                )
                response = JSONResponse({"error": str(error)}, status)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            policy = "default-src 'none'; frame-ancestors 'none'"
            response.headers.setdefault("Content-Security-Policy", policy)
            return response

        return Route(path, endpoint, methods=[method])

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
            text = f"This {self.name} is open to this machine only, not {host}."
            raise Refused(403, text)
        if request.method == "POST":
            origin = request.headers.get("origin", "")
            if not host or urlsplit(origin).netloc != host:
                raise Refused(403, f"Requests come from {host} alone, not {origin}.")
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                raise Refused(415, f"Send application/json, not {kind or 'nothing'}.")

    def _without_token(self, request: Any) -> Any:
        """The page's address without the token, which is a key: a cookie has it now."""
        from starlette.responses import RedirectResponse

        if not self.token or request.url.path != "/":
            return None
        if "token" not in request.query_params:
            return None
        response = RedirectResponse("/", 303)
        set_cookie(response, ACCESS, self.token)
        return response

    async def read(self, request: Any) -> dict[str, Any]:
        """The JSON object of a request, read no further than `body` bytes."""
        told, data = request.headers.get("content-length", ""), bytearray()
        size = int(told) if told.isdigit() else 0
        if size <= self.body:
            async for chunk in request.stream():
                data += chunk
                if len(data) > self.body:
                    break
        if max(size, len(data)) > self.body:
            raise Refused(413, f"A request has {self.body} bytes at most.")
        try:
            values = schema.parse_json(bytes(data))
        except ValueError:
            raise Refused(400, "This is no JSON.") from None
        if not isinstance(values, dict):
            raise Refused(400, "This is no JSON object.")
        return values


def page(folder: pathlib.Path, facts: Mapping[str, Any]) -> Any:
    """The answer with page.html, its script, the style of all pages and its own.

    facts: What the script reads, as JSON, from the body's `data-facts`.
    """
    from starlette.responses import HTMLResponse

    nonce = secrets.token_urlsafe(16)
    text = _read(folder / "page.html")
    for name, value in {
        "@NONCE@": nonce,
        "@CSS@": _read(_HERE.with_name("common.css")) + _read(folder / "page.css"),
        "@JS@": _read(folder / "page.js"),
        "@FACTS@": html.escape(json.dumps(facts), quote=True),
    }.items():
        text = text.replace(name, value)
    policy = _POLICY.format(nonce)
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def _read(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def set_cookie(response: Any, name: str, value: str) -> None:
    """Sets a cookie for a year that scripts cannot read."""
    # Lax: a link in a message still finds the session, another site's POST does not
    response.set_cookie(
        name, value, max_age=_YEAR, path="/", httponly=True, samesite="lax"
    )


@contextlib.contextmanager
def listening(host: str, port: int, *, verb: str, extra: str) -> Iterator[Any]:
    """Takes the port, so that nothing is loaded in vain; gives `serve` its socket.

    Raises:
      UserError: the port is taken, or uvicorn, of the extra, is missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{verb} needs {error.name}: pip install 'mmjax[{extra}]'"
        ) from error
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {host}, port {port}: {error}; give another --port, or "
            "--port 0 for any that is free"
        ) from error
    with bound:
        yield bound


def serve(
    application: Any,
    bound: socket.socket,
    *,
    host: str,
    token: str,
    say: Callable[[str], None],
) -> None:
    """Serves until it is interrupted; `say` gets the link."""
    import uvicorn

    name = host if host not in ("0.0.0.0", "::") else socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    link = f"http://{name}:{bound.getsockname()[1]}/"
    say(link + (f"?token={token}" if token else ""))
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=_GRACE,
        http="h11",
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[bound])
