"""aiohttp on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, web

from benchmarks.peers.chunks import GOODBYE, HEADERS, PORT, Chunks

SESSION = web.AppKey("session", ClientSession)


async def media(request: web.Request) -> web.WebSocketResponse:
    """One call, from its socket's opening to the service's last word."""
    twilio = web.WebSocketResponse()
    await twilio.prepare(request)
    async for message in twilio:
        said = orjson.loads(message.data)
        if said["event"] == "start":
            chunks = Chunks(said["start"])
            async with request.app[SESSION].ws_connect(chunks.url, headers=HEADERS) as upstream:
                await talk(twilio, upstream, chunks)
            break
    return twilio


async def talk(twilio: web.WebSocketResponse, upstream: ClientWebSocketResponse, chunks: Chunks) -> None:
    """From `start` on."""
    answers = asyncio.create_task(read(upstream))
    async for message in twilio:
        said = orjson.loads(message.data)
        if said["event"] == "stop":
            break
        if said["event"] == "media" and (chunk := chunks.add(said["media"])):
            await upstream.send_bytes(chunk)
    await upstream.send_bytes(chunks.rest())
    await upstream.send_str(GOODBYE)
    await answers


async def read(upstream: ClientWebSocketResponse) -> None:
    """Takes the service's answers until it closes."""
    async for _ in upstream:
        pass


async def session(app: web.Application) -> AsyncIterator[None]:
    """One session for all calls, as many as there may be: its usual limit is 100 connections."""
    async with ClientSession(connector=TCPConnector(limit=0)) as app[SESSION]:
        yield


if __name__ == "__main__":
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_get("/media", media)
    web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None)
