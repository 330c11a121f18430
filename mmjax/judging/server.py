"""The pages that raters see, over HTTP: one pair at a time, answers as JSON.

A rater is a session: a random key in a cookie that scripts cannot read and other sites
cannot send. What writes needs the session's own token in a header, besides what
`mmjax.serving.site` asks of every page. Needs mmjax[judge].
"""

import contextlib
import hashlib
import hmac
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from mmjax.judging import study as studies
from mmjax.judging.study import ASKED, QUESTIONS, Side, Study
from mmjax.judging.votes import Conflict, Votes
from mmjax.serving import site
from mmjax.serving.site import Refused
from mmjax.train import lock

SESSION = "mmjax_rater"  # cookie
_HERE = pathlib.Path(__file__).parent
_SMALL = 128  # images of fewer pixels are shown as the squares they are


class Application:
    """An ASGI application over the votes of a study, `app`.

    Args:
      token: What a link has to bring, for a study that other machines reach.
    """

    def __init__(
        self, folder: pathlib.Path, study: Study, votes: Votes, *, token: str = ""
    ):
        from starlette.applications import Starlette

        self.folder, self.study, self.votes = folder, study, votes
        self.token, self._key = token, votes.secret("csrf").encode()
        self._site = site.Site("study", token, statuses={Conflict: 409})
        route = self._site.route
        routes = [
            route("/", self._page),
            route("/begin", self._begin, "POST"),
            route("/state", self._state),
            route("/vote", self._vote, "POST"),
            route("/undo", self._undo, "POST"),
            route("/image/{shown:int}/{side}", self._image),
        ]
        self.app = Starlette(routes=routes)

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
        session = request.cookies.get(SESSION, "")
        known = bool(session) and await _aside(self.votes.rater, session) is not None
        facts = {
            "csrf": self._csrf(session) if known else "",
            "asked": ASKED,
            "pixelated": self.study.side < _SMALL,
        }
        return site.page(_HERE, facts)

    async def _begin(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        await self._site.read(request)
        session = request.cookies.get(SESSION, "")
        if not session or await _aside(self.votes.rater, session) is None:
            session = await _aside(self.votes.begin)
        rater = await _aside(self.votes.rater, session)
        state = await _aside(self.votes.state, rater)
        response = JSONResponse(state | {"csrf": self._csrf(session)})
        site.set_cookie(response, SESSION, session)
        return response

    async def _state(self, request: Any) -> Any:
        return await self._json(request, self.votes.state)

    async def _undo(self, request: Any) -> Any:
        await self._site.read(request)
        return await self._json(request, self.votes.undo)

    async def _vote(self, request: Any) -> Any:
        values = await self._site.read(request)
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


async def _aside(call: Callable, *args: Any) -> Any:
    """A call that waits for the disk, in a thread."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(call, *args)


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
            token = "" if site.is_loopback(host) else votes.secret("link")
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
    taken = site.listening(host, port, verb="judge serve", extra="judge")
    with taken as bound, opened(folder, host=host, target=target) as application:
        token = application.token
        site.serve(application.app, bound, host=host, token=token, say=say)
