"""`websockets` on both sides under asyncio, as in Deepgram's sample for Twilio."""

from __future__ import annotations

import asyncio

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.peers.chunks import GOODBYE, HEADERS, PORT, Chunks


async def media(twilio: ServerConnection) -> None:
    """One call, from its socket's opening to the service's last word."""
    async for message in twilio:
        said = orjson.loads(message)
        if said["event"] == "start":
            chunks = Chunks(said["start"])
            async with connect(chunks.url, additional_headers=HEADERS) as upstream:
                await talk(twilio, upstream, chunks)
            return


async def talk(twilio: ServerConnection, upstream: ClientConnection, chunks: Chunks) -> None:
    """From `start` on."""
    answers = asyncio.create_task(read(upstream))
    async for message in twilio:
        said = orjson.loads(message)
        if said["event"] == "stop":
            break
        if said["event"] == "media" and (chunk := chunks.add(said["media"])):
            await upstream.send(chunk)
    await upstream.send(chunks.rest())
    await upstream.send(GOODBYE)
    await answers


async def read(upstream: ClientConnection) -> None:
    """Takes the service's answers until it closes."""
    async for _ in upstream:
        pass


async def main() -> None:
    """Serves for ever."""
    async with serve(media, "127.0.0.1", PORT) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
