"""The page's process: builds the application out of its pages and serves it until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent.config.file import ConfigError, Problem
from agent.config.secret_files import read_secret
from agent.config.web import host_of, tls_context
from agent.config.web_check import web_problems
from agent.errors import ExitCode, Fatal
from agent.web import changing, health, line, login, models, pictures, review, strip, strips, trend
from agent.web.asking import Agent, AgentRefusedError, AgentSilentError
from agent.web.cache import Cache
from agent.web.guard import GuardedProtocol
from agent.web.live import Live
from agent.web.login import Gate, Tries
from agent.web.painter import Painter
from agent.web.sessions import Sessions
from agent.web.site import Site, render
from agent.web.walls import TooLargeError, Walls, own_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from agent.config import Config

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
KEEP_ALIVE_SECONDS = 15
STOP_SECONDS = 3
HEAD_BYTES = 16 << 10
BACKLOG = 128
NOT_FOUND = 404


def make_app(config: Config, password: str = "") -> Starlette:
    """Build the application; `password` is the text of `web.password_file`, "" where none is asked for."""
    agent = Agent(config.agent.state_folder / "control.sock")
    site = Site(config, agent, Sessions(time.monotonic), Live(agent), Painter(), Cache(), password)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await site.painter.close()

    app = Starlette(
        routes=[
            *line.routes,
            *strips.routes,
            *strip.routes,
            *review.routes,
            *trend.routes,
            *pictures.routes,
            *models.routes,
            *changing.routes,
            *health.routes,
            *login.routes,
            Route("/events", site.live.stream),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Walls, names=own_names(host_of(config.web.listen))), Middleware(Gate, site=site)],
        exception_handlers={
            HTTPException: _refused,
            AgentSilentError: _agent_silent,
            AgentRefusedError: _agent_refused,
            TooLargeError: _too_large,
            TimeoutError: _too_slow,
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.state.site = site
    app.state.tries = Tries()
    app.router.redirect_slashes = False  # an address with one too many is no page
    return app


def run_web(config: Config, environ: Mapping[str, str] = os.environ) -> ExitCode:
    """Serve the page until SIGTERM. Raises ConfigError where the configuration does not allow it, Fatal else."""
    if not config.web.enabled:
        raise ConfigError([Problem(None, "web.enabled", "the page is switched off; write `enabled: true`")])
    if problems := [*web_problems(config, environ)]:
        raise ConfigError(problems)
    password = read_secret(config.web.password_file, environ) if config.web.password_file is not None else ""
    server = uvicorn.Server(_settings(config, make_app(config, password)))
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what clients do wrong is no news
    log.info("the page is at %s://%s/", "https" if config.web.tls else "http", config.web.listen)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises once more what ended it
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it cannot listen
        raise Fatal(ExitCode.FAILED, f"web.listen: cannot listen on {config.web.listen}") from error
    if not server.started:
        raise Fatal(ExitCode.FAILED, f"web.listen: cannot listen on {config.web.listen}")
    return ExitCode.OK


def _settings(config: Config, app: Starlette) -> uvicorn.Config:
    web = config.web
    settings = uvicorn.Config(
        app,
        host=host_of(web.listen),
        port=int(web.listen.rpartition(":")[2]),
        http=GuardedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        backlog=BACKLOG,
    )
    if web.tls is not None:
        settings.load()
        settings.ssl = tls_context(web.tls)
    return settings


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == NOT_FOUND:
        return render(request, "error.html", NOT_FOUND, title="error.not_found", detail="")
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


async def _agent_silent(request: Request, error: Exception) -> Response:
    return render(request, "error.html", 503, title="error.silent", detail=str(error))


async def _agent_refused(request: Request, error: Exception) -> Response:
    return render(request, "error.html", NOT_FOUND, title="error.refused", detail=str(error))


async def _too_large(_: Request, __: Exception) -> Response:
    return PlainTextResponse("too large\n", 413, {"connection": "close"})


async def _too_slow(_: Request, __: Exception) -> Response:
    return PlainTextResponse("too slow\n", 408, {"connection": "close"})


async def _failed(_: Request, error: Exception) -> Response:
    log.error("a page failed", exc_info=error)
    return PlainTextResponse("the page failed; the log says why\n", 500)
