"""HTTP of the agent to elsewhere: one connection with its time limit, the environment's proxy, bounded answers.

Standard library only: http.client. The proxy is the one that the environment names (https_proxy, no_proxy, as the nucleus
sets them), asked by CONNECT.
"""

from __future__ import annotations

import base64
import http.client
import os
import ssl
import urllib.parse
import urllib.request

ANSWER_S = 30.0
_ANSWER_LIMIT_BYTES = 64 * 1024


def connection(endpoint: str, proxy: str = "", context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection, not made yet, to scheme, host and port of `endpoint`; `context` None trusts AWS_CA_BUNDLE or the system."""
    parts, way = urllib.parse.urlsplit(endpoint), urllib.parse.urlsplit(proxy or endpoint)
    made: http.client.HTTPConnection
    if parts.scheme == "https":
        context = context or ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
        made = http.client.HTTPSConnection(way.hostname or "", way.port, timeout=ANSWER_S, context=context)
    else:
        made = http.client.HTTPConnection(way.hostname or "", way.port, timeout=ANSWER_S)
    if proxy:
        headers = {}
        if way.username is not None:
            user = f"{urllib.parse.unquote(way.username)}:{urllib.parse.unquote(way.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        made.set_tunnel(parts.hostname or "", parts.port, headers)
    return made


def proxy(endpoint: str) -> str:
    """The URL of the proxy that the environment names for this endpoint, "" for none."""
    parts = urllib.parse.urlsplit(endpoint)
    found = urllib.request.getproxies()
    named = found.get(parts.scheme) or found.get("all", "")
    if not named or urllib.request.proxy_bypass(parts.netloc, found):
        return ""
    return named if "://" in named else f"http://{named}"


def answer(made: http.client.HTTPConnection) -> tuple[int, bytes]:
    """The status and the beginning of the body. Raises OSError, http.client.HTTPException."""
    response = made.getresponse()
    text = response.read(_ANSWER_LIMIT_BYTES)
    if not response.isclosed():
        made.close()  # more than we want to read
    return response.status, text
