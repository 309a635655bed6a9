"""What all pages share: the configuration, the agent, the words, the templates, and how a page is answered."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.routing import Route

from agent import __version__
from agent.web.sessions import COOKIE, is_token
from agent.web.texts import Words, choose
from agent.web.walls import Rates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from agent.config import Config
    from agent.web.asking import Agent
    from agent.web.cache import Cache
    from agent.web.live import Live
    from agent.web.painter import Painter
    from agent.web.sessions import Session, Sessions

Form = dict[str, str]

TEMPLATES = Path(__file__).with_name("templates")
MAX_FIELDS = 40
REVIEWS_A_SECOND, REVIEWS_AT_ONCE = 0.5, 20  # of one client
PAGES = ("line", "strips", "trend", "models", "health")
"""Of the navigation, in its order; a page is at `/<name>`. Those without a route are not shown."""

_environment = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class Site:
    """One page server. `password` is the text of `web.password_file`, "" where none is asked for."""

    config: Config
    agent: Agent
    sessions: Sessions
    live: Live
    painter: Painter
    cache: Cache
    password: str = ""
    review_rates: Rates = field(default_factory=lambda: Rates(time.monotonic, REVIEWS_A_SECOND, REVIEWS_AT_ONCE))


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    site: Site = request.app.state.site
    return site


def words_of(request: Request) -> Words:
    """Return the words in the language that the configuration or the browser asks for."""
    setting = site_of(request).config.web.language
    return Words(choose(setting, request.headers.get("accept-language", "")))


def session_of(request: Request) -> Session | None:
    """Return the browser's session, where it has one."""
    return site_of(request).sessions.find(request.cookies.get(COOKIE, ""))


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Answer with a page. Templates know `words`, `page`, `csrf`, `now_ms`, `agent_name` and what is given here.

    A browser without a session gets one: what it posts has to carry the session's token.
    """
    site, session, token = site_of(request), session_of(request), ""
    if session is None:
        token, session = site.sessions.begin(logged_in=False)
    pages = {getattr(route, "name", "") for route in request.app.routes}
    values = {
        "words": words_of(request),
        "page": request.url.path.strip("/").partition("/")[0] or "line",
        "pages": [name for name in PAGES if name in pages],
        "csrf": session.csrf,
        "logged_in": session.logged_in and bool(site.password),
        "now_ms": time.time_ns() // 1_000_000,
        "agent_name": site.config.agent.name,
        "version": __version__,
        "reviews": site.config.web.reviews,
        **values,
    }
    response = HTMLResponse(_environment.get_template(template).render(values), status)
    if token:
        set_cookie(request, response, token)
    return response


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Have the browser keep its session until it is closed."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")


def post(path: str, answer: Callable[[Request, Form], Awaitable[Response]]) -> Route:
    """Make a route for a form: only with the session's token, and only from a page of this site."""

    async def checked(request: Request) -> Response:
        return await answer(request, await read_form(request))

    return Route(path, checked, methods=["POST"])


async def read_form(request: Request) -> Form:
    """Return the fields of a post; of a name that repeats the last one. Raises HTTPException for a forged one."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "from another site")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    try:
        fields = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise HTTPException(400) from error
    session = session_of(request)
    if session is None or not is_token(session, fields.get("csrf", "")):
        raise HTTPException(403, "the page was too old; load it again")
    return fields


def link(path: str, **query: Any) -> str:
    """Write a link of this site; what is None or "" is left out."""
    text = urlencode({key: str(value) for key, value in query.items() if value not in (None, "")})
    return f"{path}?{text}" if text else path


def at(ms: float) -> str:
    """Write a time (Unix milliseconds) as the box's clock on the wall shows it; "" for 0."""
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S") if ms else ""


def iso(ms: float) -> str:
    """Write a time for machines."""
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(timespec="milliseconds")


def score(value: float) -> str:
    """Write a score, or a number of pixels."""
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:,.6g}"


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def code(text: str) -> Markup:
    """Write what stands between backticks as code, everything else as the text that it is."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


_environment.globals.update(link=link)
_environment.filters.update(at=at, iso=iso, score=score, size=size, code=code)
