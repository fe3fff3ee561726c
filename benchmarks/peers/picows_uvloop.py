"""picows, written in C, on uvloop: the fastest there is for Python."""

from __future__ import annotations

import asyncio

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

from benchmarks.peers.chunks import GOODBYE, HEADERS, PORT, Chunks

connecting: set[asyncio.Task[None]] = set()


class Twilio(WSListener):
    """One call. Frames come by callback, so those that come before the service is there have to wait in a list."""

    def __init__(self) -> None:
        self._upstream: WSTransport | None = None
        self._chunks: Chunks
        self._early: list[tuple[WSMsgType, bytes]] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Remembers whom to listen to."""
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A message of the call."""
        if frame.msg_type is not WSMsgType.TEXT:
            return
        said = orjson.loads(frame.get_payload_as_memoryview())
        match said["event"]:
            case "media":
                if chunk := self._chunks.add(said["media"]):
                    self._send(WSMsgType.BINARY, chunk)
            case "start":
                self._chunks = Chunks(said["start"])
                task = asyncio.create_task(self._connect())
                connecting.add(task)
                task.add_done_callback(connecting.discard)
            case "stop":
                self._send(WSMsgType.BINARY, self._chunks.rest())
                self._send(WSMsgType.TEXT, GOODBYE.encode())

    def _send(self, kind: WSMsgType, message: bytes) -> None:
        if self._upstream is None:
            self._early.append((kind, message))
        else:
            self._upstream.send(kind, message)

    async def _connect(self) -> None:
        self._upstream, _ = await ws_connect(lambda: Upstream(self.transport), self._chunks.url, extra_headers=HEADERS)
        for kind, message in self._early:
            self._upstream.send(kind, message)


class Upstream(WSListener):
    """The service, whose answers are taken and ignored."""

    def __init__(self, twilio: WSTransport) -> None:
        self._twilio = twilio

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """An answer, or the end."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            self._twilio.send_close()
            self._twilio.disconnect()
        else:
            frame.get_payload_as_memoryview()

    def pause_writing(self) -> None:
        """The service does not take more: neither do we."""
        self._twilio.underlying_transport.pause_reading()

    def resume_writing(self) -> None:
        """The service takes more."""
        self._twilio.underlying_transport.resume_reading()


def answer(_request: WSUpgradeRequest) -> WSListener:
    """Every request is a media stream."""
    return Twilio()


async def main() -> None:
    """Serves for ever."""
    await (await ws_create_server(answer, "127.0.0.1", PORT)).serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
