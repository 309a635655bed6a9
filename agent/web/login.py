"""The password: whoever has not given it sees nothing but the form, where `web.password_file` asks for one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from agent.web.sessions import COOKIE, is_password
from agent.web.site import link, post, render, set_cookie, site_of
from agent.web.walls import Rates

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from agent.web.site import Form, Site

OPEN_PATHS = ("/login", "/static/")
TRIES_A_SECOND, TRIES = 0.1, 10.0  # for each client
ALL_TRIES_A_SECOND, ALL_TRIES = 1.0, 30.0


class Tries:
    """Bounds how often passwords are tried, by each client and by all together; each costs 16 MiB and 50 ms."""

    def __init__(self) -> None:
        self._of_client = Rates(time.monotonic, TRIES_A_SECOND, TRIES)
        self._of_all = Rates(time.monotonic, ALL_TRIES_A_SECOND, ALL_TRIES)
        self.one_at_a_time = asyncio.Lock()

    def take(self, client: str) -> bool:
        """Count a try; False when it is one too many."""
        return self._of_client.take(client) and self._of_all.take("")


class Gate:
    """Lets nobody in who is not logged in."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or lead to the form."""
        if scope["type"] == "http" and self._site.password and not scope["path"].startswith(OPEN_PATHS):
            session = self._site.sessions.find(HTTPConnection(scope).cookies.get(COOKIE, ""))
            if session is None or not session.logged_in:
                wants_page = "text/html" in HTTPConnection(scope).headers.get("accept", "")
                refusal: Response = PlainTextResponse("log in first\n", 401)
                if scope["method"] == "GET" and wants_page:
                    refusal = RedirectResponse(link("/login", next=scope["path"]), 303)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def show(request: Request) -> Response:
    """Show the form."""
    if not site_of(request).password:
        return RedirectResponse("/", 303)
    return render(request, "login.html", next=_inside(request.query_params.get("next", "")), wrong="")


async def log_in(request: Request, form: Form) -> Response:
    """Compare the password, and begin a new session with it: nobody else can have known that one's cookie."""
    site = site_of(request)
    client = request.client.host if request.client else ""
    following = _inside(form.get("next", ""))
    if not site.password:
        return RedirectResponse("/", 303)
    tries: Tries = request.app.state.tries
    if not tries.take(client):
        return render(request, "login.html", 429, next=following, wrong="login.wait")
    async with tries.one_at_a_time:
        right = await asyncio.to_thread(is_password, form.get("password", ""), site.password)
    if not right:
        return render(request, "login.html", 403, next=following, wrong="login.wrong")
    site.sessions.end(request.cookies.get(COOKIE, ""))
    token, _ = site.sessions.begin(logged_in=True)
    response = RedirectResponse(following, 303)
    set_cookie(request, response, token)
    return response


async def log_out(request: Request, _: Form) -> Response:
    """End the session."""
    site_of(request).sessions.end(request.cookies.get(COOKIE, ""))
    return RedirectResponse("/login" if site_of(request).password else "/", 303)


def _inside(path: str) -> str:
    """Return a path of this site, whatever was given."""
    return path if path.startswith("/") and not path.startswith("//") and path.isascii() and "\\" not in path else "/"


routes = [Route("/login", show, methods=["GET"]), post("/login", log_in), post("/logout", log_out)]
