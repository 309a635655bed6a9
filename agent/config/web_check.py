"""What only this machine can tell about `web:`: packages, the password's file, the certificate.

All of it are warnings to the service, which goes on without the page; `strip-agent web` does not start with them.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from agent.config.file import ConfigError, Problem
from agent.config.secret_files import read_secret
from agent.config.web import host_of, is_loopback, missing_packages, tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import Config


def web_problems(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Return what keeps the page from being served; nothing where it is off."""
    web = config.web
    if not web.enabled:
        return
    if missing := missing_packages():
        message = f"it needs the packages {', '.join(missing)}: pip install 'strip-agent[web]'"
        yield Problem(None, "web.enabled", message, warning=True)
    if web.password_file is not None:
        try:
            read_secret(web.password_file, environ)
        except ConfigError as error:
            for one in error.problems:
                yield Problem(None, "web.password_file", f"{one.where} {one.message}", warning=True)
    if web.tls is not None:
        try:
            tls_context(web.tls)
        except (OSError, ssl.SSLError) as error:
            yield Problem(None, "web.tls", f"the certificate cannot be used: {error}", warning=True)


def unencrypted(config: Config) -> Problem | None:
    """Warn where the password of the page travels in plain text."""
    web = config.web
    if not web.enabled or web.tls is not None or is_loopback(host_of(web.listen)):
        return None
    return Problem(None, "web.tls", "the page's password travels unencrypted; see docs/web.md", warning=True)
