"""WebSocket frames (RFC 6455) as a server reads and writes them. Pure: bytes in, messages out, nothing waits.

A client's frames are masked and ours are not; no extension is ever agreed on, so reserved bits stay zero.
Section numbers below are of https://www.rfc-editor.org/rfc/rfc6455.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# Close codes (7.4.1)
NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005  # stands for a close frame without a code; never travels
ABNORMAL: Final = 1006  # stands for an end without a close frame; never travels
NOT_TEXT: Final = 1007
TOO_LONG: Final = 1009

# Opcodes (5.2); from 8 on they control the connection
_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_OPCODES: Final = frozenset((_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG))

_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_WHOLE_TEXT: Final = _FINAL | _TEXT  # the first byte of nearly every frame there is

CONTROL_AT_MOST: Final = 125  # bytes in a control frame (5.5)
REASON_AT_MOST: Final = CONTROL_AT_MOST - 2  # a close frame's code takes two


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks whether we are there, and wants these bytes back."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answers a ping, or just says that it is there."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer says its last word; nothing it sends afterwards counts (5.5.1)."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol: the code to close with, and why. The reason never repeats what the peer sent."""

    code: int
    reason: str


Received = str | bytes | Ping | Pong | Close | Violation


class _Broken(Exception):
    """Carries a violation out of the depths."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.violation = Violation(code, reason)


class FrameDecoder:
    """Reads a client's frames, however the network cut them. After a `Close` or a `Violation` it hears nothing more.

    Memory is bounded by one message of `largest` bytes and one `feed`; time grows with the bytes, not with the pieces.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._pending = bytearray()  # of a frame that is not whole yet
        self._needed = 0  # how long `_pending` must be before it is worth another look
        self._opcode = _CONTINUATION  # of the message whose fragments are coming, if any
        self._message = bytearray()  # those that came
        self._over = False

    def feed(self, data: bytes) -> list[Received]:
        """What these bytes complete, in order; a close or a violation comes last."""
        received: list[Received] = []
        if self._over:
            return received
        try:
            for first, payload in self._frames(data):
                if first == _WHOLE_TEXT:
                    received.append(_text(payload))
                elif (item := self._take(first, payload)) is not None:
                    received.append(item)
                    if isinstance(item, Close):
                        self._over = True
                        break
        except _Broken as broken:
            received.append(broken.violation)
            self._over = True
        return received

    def _frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The first byte and the unmasked payload of each whole frame; the rest is kept until more comes."""
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return
            data = bytes(self._pending)
        have, start = len(data), 0
        while have >= (end := start + 2):
            first, second = data[start], data[start + 1]
            if first != _WHOLE_TEXT or self._opcode or second < _MASKED:
                self._judge(first, second)
            length, body = second & 0x7F, start + 6
            if length > 125:  # the length itself stands in the next 2 or 8 bytes
                body += 2 if length == 126 else 8
                if have < (end := body - 4):
                    break
                length = _wide_length(data[start + 2 : end])
            if length + len(self._message) > self._largest and first & 0x0F < _CLOSE:
                raise _Broken(TOO_LONG, f"a message is longer than {self._largest} bytes")
            if have < (end := body + length):
                break
            yield first, _mask(data[body - 4 : body], data[body:end])
            start = end
        self._pending = bytearray(data[start:])
        self._needed = end - start

    def _judge(self, first: int, second: int) -> None:
        """Refuses a frame by its first two bytes, before any of its payload has come."""
        opcode = first & 0x0F
        if first & _RESERVED:
            raise _Broken(PROTOCOL_ERROR, "a frame has reserved bits set")
        if not second & _MASKED:
            raise _Broken(PROTOCOL_ERROR, "a frame is not masked")
        if opcode not in _OPCODES:
            raise _Broken(PROTOCOL_ERROR, "a frame has a reserved opcode")
        if opcode >= _CLOSE:
            if not first & _FINAL:
                raise _Broken(PROTOCOL_ERROR, "a control frame is fragmented")
            if second & 0x7F > CONTROL_AT_MOST:
                raise _Broken(PROTOCOL_ERROR, f"a control frame is longer than {CONTROL_AT_MOST} bytes")
        elif opcode == _CONTINUATION and not self._opcode:
            raise _Broken(PROTOCOL_ERROR, "a fragment continues nothing")
        elif opcode != _CONTINUATION and self._opcode:
            raise _Broken(PROTOCOL_ERROR, "a message begins inside another")

    def _take(self, first: int, payload: bytes) -> Received | None:
        """What a frame means; nothing yet while fragments are missing."""
        opcode = first & 0x0F
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        if opcode == _CLOSE:
            return _close(payload)
        if opcode != _CONTINUATION:
            self._opcode = opcode
        self._message += payload
        return self._finish_message() if first & _FINAL else None

    def _finish_message(self) -> str | bytes:
        opcode, message = self._opcode, bytes(self._message)
        self._opcode = _CONTINUATION
        self._message.clear()
        return message if opcode == _BINARY else _text(message)


def _wide_length(field: bytes) -> int:
    """A length of 2 or 8 bytes, which has to need them and must leave the highest of 64 bits alone (5.2)."""
    length = int.from_bytes(field)
    if length < (126 if len(field) == 2 else 1 << 16) or length >> 63:
        raise _Broken(PROTOCOL_ERROR, "a frame's length is not written as it has to be")
    return length


def _mask(key: bytes, payload: bytes) -> bytes:
    """XOR with the key over and over, which masks and unmasks (5.3).

    As one large integer, since a loop over the bytes takes 20 times as long.
    """
    size = len(payload)
    pattern = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(pattern)).to_bytes(size)


def _text(payload: bytes) -> str:
    try:
        return payload.decode()  # strict: no overlong forms, no surrogates (RFC 3629)
    except UnicodeDecodeError:
        raise _Broken(NOT_TEXT, "a text is not UTF-8") from None


def _close(payload: bytes) -> Close:
    if not payload:
        return Close(NO_CODE, "")
    code = int.from_bytes(payload[:2])
    if not _may_travel(code):  # as one byte alone never may
        raise _Broken(PROTOCOL_ERROR, "a close frame has no valid code")
    return Close(code, _text(payload[2:]))


def _may_travel(code: int) -> bool:
    """Whether a close frame may carry this code (7.4).

    1012 to 1014 came later: https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number
    """
    return code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode(message: str | bytes) -> bytes:
    """A message in one frame: text as text, bytes as binary."""
    if isinstance(message, str):
        return _frame(_TEXT, message.encode())
    return _frame(_BINARY, message)


def encode_masked(message: str | bytes, key: bytes) -> bytes:
    """A message in one frame as a client has to send it: masked with four bytes nobody can foresee (5.3)."""
    payload = message.encode() if isinstance(message, str) else message
    opcode = _TEXT if isinstance(message, str) else _BINARY
    return _header(opcode, len(payload), _MASKED) + key + _mask(key, payload)


def encode_ping(payload: bytes = b"") -> bytes:
    """A question whether the peer is there; it must send these bytes back."""
    return _control(_PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """The answer to a ping that carried these bytes."""
    return _control(_PONG, payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """Our last word; `NO_CODE` says it without a code. A reason that is too long is cut between two characters."""
    if code == NO_CODE:
        return _control(_CLOSE, b"")
    if not _may_travel(code):
        raise ValueError(f"A close frame cannot carry the code {code}.")
    cut = reason.encode(errors="replace")[:REASON_AT_MOST].decode(errors="ignore")
    return _control(_CLOSE, code.to_bytes(2) + cut.encode())


def _control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > CONTROL_AT_MOST:
        raise ValueError(f"A control frame carries at most {CONTROL_AT_MOST} bytes.")
    return _frame(opcode, payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    return _header(opcode, len(payload)) + payload


def _header(opcode: int, length: int, masked: int = 0) -> bytes:
    if length < 126:
        return bytes((_FINAL | opcode, masked | length))
    if length < 1 << 16:
        return bytes((_FINAL | opcode, masked | 126)) + length.to_bytes(2)
    return bytes((_FINAL | opcode, masked | 127)) + length.to_bytes(8)
