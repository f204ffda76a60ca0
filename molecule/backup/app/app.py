# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A small ASGI service that reads its database for every answer."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

Message = dict[str, Any]
QUERY = "SELECT count(*), count(*) FILTER (WHERE body = 'the service cannot stand this') FROM notes"


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """GET anything: how many notes there are; ok unless one of them is unbearable."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    try:
        async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"]) as connection:
            notes, unbearable = await (await connection.execute(QUERY)).fetchone()
        status, told = 200, {"ok": unbearable == 0, "notes": notes}
    except psycopg.Error as error:
        status, told = 500, {"ok": False, "error": str(error)}
    text = json.dumps({**told, "release": os.environ.get("APP_RELEASE", "")}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
