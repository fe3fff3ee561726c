"""FastAPI on uvicorn with uvloop, and the `websockets` client, as in AssemblyAI's and Palabra's samples."""

from __future__ import annotations

import asyncio

import orjson
import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.peers.chunks import GOODBYE, HEADERS, PORT, Chunks

app = FastAPI()


@app.websocket("/media")
async def media(twilio: WebSocket) -> None:
    """One call, from its socket's opening to the service's last word."""
    await twilio.accept()
    while True:
        said = orjson.loads(await twilio.receive_text())
        if said["event"] == "start":
            chunks = Chunks(said["start"])
            async with connect(chunks.url, additional_headers=HEADERS) as upstream:
                await talk(twilio, upstream, chunks)
            return


async def talk(twilio: WebSocket, upstream: ClientConnection, chunks: Chunks) -> None:
    """From `start` on."""
    answers = asyncio.create_task(read(upstream))
    while (said := orjson.loads(await twilio.receive_text()))["event"] != "stop":
        if said["event"] == "media" and (chunk := chunks.add(said["media"])):
            await upstream.send(chunk)
    await upstream.send(chunks.rest())
    await upstream.send(GOODBYE)
    await answers


async def read(upstream: ClientConnection) -> None:
    """Takes the service's answers until it closes."""
    async for _ in upstream:
        pass


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, loop="uvloop", log_level="warning")
