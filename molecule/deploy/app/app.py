# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A small ASGI service that says which release it is, takes its time when asked to, and echoes over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

RELEASE = os.environ.get("APP_RELEASE", "")
GREETING = os.environ.get("GREETING", "")

Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """GET /health and /ready; GET or POST /work?ms=100; WebSocket /echo."""
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http":
        await answer(scope, receive, send)


async def answer(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Every answer names the release."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    milliseconds = float(parse_qs(scope["query_string"].decode()).get("ms", ["0"])[0])
    await asyncio.sleep(milliseconds / 1000)
    known = scope["path"] in ("/", "/health", "/ready", "/work")
    text = json.dumps({"ok": True, "release": RELEASE, "greeting": GREETING, "bytes": len(body)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def echo(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    """Sends back what comes, with the release before it."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{RELEASE} {message.get('text') or ''}"})
