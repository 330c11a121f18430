"""A page of trained runs, over HTTP: forms in, events as JSON lines out."""

import contextlib
import json
import pathlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from mmjax.app import draw, fields, tools
from mmjax.app.line import Line, Tell
from mmjax.app.tools import Tool
from mmjax.errors import UserError
from mmjax.inference import answer, load
from mmjax.retrieval import store as store_lib
from mmjax.serving import site
from mmjax.serving.site import Refused

_HERE = pathlib.Path(__file__).parent
_BODY = fields.LIMIT * 4 // 3 + 100_000  # an upload in base64, and the rest of a form
_NAN = "NaN came out: the weights are broken, go back to an earlier checkpoint"


def offered(
    runs: Sequence[load.Run],
    *,
    index: store_lib.Store | None = None,
    features: load.Run | None = None,
    batch: int = 4,
) -> list[Tool]:
    """All tools of the runs, in the order of the runs.

    Args:
      runs: The first that embeds images and texts ranks what others draw.
      index: Images to search, by one of the runs.
      features: The run that makes the features of captioners that read any.
      batch: Candidates or images in a call.

    Raises:
      UserError: a run has nothing for a page, or the index is another model's.
    """
    runs = [tools.small(run, batch) for run in runs]
    network = tools.small(features, batch) if features else None
    embedding = [run for run in runs if tools.offers(run, "embed_image", "embed_text")]
    held = [tools.examples(run) for run in runs]
    texts_of, images_of = (
        [one for one in part if one] for part in zip(*held, strict=True)
    )
    listed: list[Tool] = []
    for run, (texts, images) in zip(runs, held, strict=True):
        texts = texts or (*texts_of, ())[0]
        images = images or (*images_of, ())[0]
        image = fields.Field("image", "Image", "image", examples=images)
        before = len(listed)
        if tools.offers(run, "sample") and run.parts.image_cfg:
            listed += draw.Drawer(run, (*embedding, None)[0]).tools(texts, image)
        embeds = tools.offers(run, "embed_image", "embed_text")
        if embeds and tools.offers(run, "scale"):
            listed.append(tools.classifier(run, image))
        if tools.offers(run, "caption"):
            listed.append(tools.captioner(run, network, image))
        if answer.answers(run) and run.parts.image_cfg:
            listed.append(tools.answerer(run, texts, image))
        alone = index is None and len(runs) == 1
        if len(listed) == before and (alone or not embeds):
            raise UserError(
                f"{run.workdir} is a run of task {run.config.task.name}, which this "
                "page has no use for: give runs that draw, embed, caption or answer"
            )
    if index is not None:
        text = fields.Field("text", "Text", examples=(*texts_of, ())[0])
        image = fields.Field("image", "Image", "image", examples=(*images_of, ())[0])
        listed.append(tools.searcher(index, embedding, text, image))
    return listed


class Application:
    """An ASGI application over tools, `app`. Their first computation, which compiles,
    is in the line before anybody's.

    Args:
      token: What a link has to bring, for a page that other machines reach.
    """

    def __init__(self, listed: Sequence[Tool], line: Line, *, token: str = ""):
        from starlette.applications import Starlette

        self.tools, self.line, self.token = listed, line, token
        self._compiling = [True] * len(listed)
        self._site = site.Site("page", token, body=_BODY)
        route = self._site.route
        routes = [
            route("/", self._page),
            route("/state", self._state),
            route("/example/{tool:int}/{field}/{n:int}", self._example),
            route("/ask/{tool:int}", self._ask, "POST"),
        ]
        self.app = Starlette(routes=routes)
        for n, tool in enumerate(listed):
            line.enter(self._warm(n, tool))

    def _warm(self, n: int, tool: Tool) -> Callable[[Tell], None]:
        def work(tell: Tell) -> None:
            try:
                tool.warm(tell)
            finally:
                self._compiling[n] = False

        return work

    async def _page(self, request: Any) -> Any:
        listed = [
            {
                "title": tool.title,
                "run": str(tool.run.workdir),
                "name": tool.run.workdir.resolve().name,
                "about": tool.about,
                "fields": [field.facts() for field in tool.fields],
            }
            for tool in self.tools
        ]
        return site.page(_HERE, {"tools": listed, "limit": fields.LIMIT})

    async def _state(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        return JSONResponse({"compiling": self._compiling})

    def _tool(self, request: Any) -> Tool:
        n = request.path_params["tool"]
        if n >= len(self.tools):
            raise Refused(404, f"There is no tool {n}: load the page again.")
        return self.tools[n]

    async def _example(self, request: Any) -> Any:
        from starlette.responses import Response

        name, n = request.path_params["field"], request.path_params["n"]
        for field in self._tool(request).fields:
            if (field.name, field.kind) == (name, "image") and n < len(field.examples):
                return Response(field.examples[n], media_type="image/png")
        raise Refused(404, "There is no such example.")

    async def _ask(self, request: Any) -> Any:
        from starlette.responses import StreamingResponse

        tool, given = self._tool(request), await self._site.read(request)
        if self.line.full:
            raise Refused(503, "Too many requests wait already: try again in a minute.")
        events = self.line.events(tool.work(given), request.is_disconnected)
        return StreamingResponse(_lines(events), media_type="application/x-ndjson")


async def _lines(events: AsyncIterator[Any]) -> AsyncIterator[str]:
    async with contextlib.aclosing(events):
        async for event in events:
            try:
                yield json.dumps(event, allow_nan=False) + "\n"
            except ValueError:
                yield json.dumps({"error": _NAN}) + "\n"


def serve(
    open_tools: Callable[[], Sequence[Tool]],
    *,
    host: str = "127.0.0.1",
    port: int = 8009,
    say: Callable[[str], None] = print,
) -> None:
    """Serves until it is interrupted; `say` gets the link.

    open_tools: Called once the port is taken, for it may take long.

    Raises:
      UserError: the port is taken, the extra `app` is missing, or see `offered`.
    """
    line, token = Line(), "" if site.is_loopback(host) else secrets.token_urlsafe(32)
    with site.listening(host, port, verb="app", extra="app") as bound:
        try:
            application = Application(open_tools(), line, token=token)
            site.serve(application.app, bound, host=host, token=token, say=say)
        finally:
            line.close()
