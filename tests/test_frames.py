"""Frames by the book (RFC 6455): the table below is also sent to a real server in test_mediasocket."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.frames import (
    NO_CODE,
    Close,
    FrameDecoder,
    Ping,
    Pong,
    Received,
    Violation,
    encode,
    encode_close,
    encode_ping,
    encode_pong,
)

LARGEST = 70_000  # bytes in a message, in all of these tests
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = b"\x37\xfa\x21\x3d"


def length_field(length: int, width: int | None = None) -> bytes:
    """A masked frame's length, in the narrowest field or one of `width` bytes."""
    if width is None:
        width = 0 if length < 126 else 2 if length < 65536 else 8
    if width == 0:
        return bytes((0x80 | length,))
    return bytes((0x80 | (126 if width == 2 else 127),)) + length.to_bytes(width)


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """The slow and obvious way."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    last: bool = True,
    reserved: int = 0,
    key: bytes = KEY,
    width: int | None = None,
) -> bytes:
    """A frame as a client sends it."""
    first = (0x80 if last else 0) | reserved << 4 | opcode
    return bytes((first,)) + length_field(len(payload), width) + key + masked(payload, key)


def unmasked(opcode: int, payload: bytes = b"") -> bytes:
    return bytes((0x80 | opcode, len(payload))) + payload


def announced(opcode: int, length: int, key: bytes = b"") -> bytes:
    """A header whose payload never comes, or comes later."""
    return bytes((0x80 | opcode,)) + length_field(length) + key


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason)


@dataclass(frozen=True)
class Case:
    """Bytes from a client, and what they mean; a violation by its code alone."""

    name: str
    wire: bytes
    means: tuple[str | bytes | Ping | Pong | Close | int, ...]


def sizes() -> list[Case]:
    cases = []
    for size in (0, 1, 125, 126, 127, 128, 65535, 65536, LARGEST):
        text = ("kurz und gut " * (size // 13 + 1))[:size]
        data = bytes(i & 0xFF for i in range(size))
        cases.append(Case(f"text of {size}", frame(TEXT, text.encode()), (text,)))
        cases.append(Case(f"binary of {size}", frame(BINARY, data), (data,)))
    return cases


def masks() -> list[Case]:
    return [
        Case("a key of zeros", frame(TEXT, b"hello", key=bytes(4)), ("hello",)),
        Case("a key of ones", frame(TEXT, b"hello", key=b"\xff" * 4), ("hello",)),
        *(Case(f"a tail of {n}", frame(BINARY, b"\0" * n, key=b"\0\1\2\3"), (b"\0" * n,)) for n in range(9)),
        Case("no mask", unmasked(TEXT, b"hello"), (1002,)),
        Case("no mask on a ping", unmasked(PING), (1002,)),
        Case("no mask on the second", frame(TEXT, b"a") + unmasked(TEXT, b"b"), ("a", 1002)),
    ]


def headers() -> list[Case]:
    return [
        *(Case(f"reserved bits {bits:03b}", frame(TEXT, b"x", reserved=bits), (1002,)) for bits in range(1, 8)),
        *(Case(f"reserved bits {bits:03b} on a ping", frame(PING, reserved=bits), (1002,)) for bits in (1, 2, 4)),
        *(Case(f"opcode {op:#x}", frame(op, b"x"), (1002,)) for op in (*range(3, 8), *range(11, 16))),
        *(Case(f"opcode {op:#x} after a text", frame(TEXT, b"x") + frame(op), ("x", 1002)) for op in (3, 11)),
        Case("5 in a field of 2 bytes", frame(TEXT, b"hello", width=2), (1002,)),
        Case("5 in a field of 8 bytes", frame(TEXT, b"hello", width=8), (1002,)),
        Case("126 in a field of 8 bytes", frame(TEXT, b"x" * 126, width=8), (1002,)),
        Case("a length of 64 bits", announced(TEXT, 1 << 63), (1002,)),
    ]


def control() -> list[Case]:
    return [
        Case("an empty ping", frame(PING), (Ping(b""),)),
        Case("a ping of 125", frame(PING, b"\xfe" * 125), (Ping(b"\xfe" * 125),)),
        Case("a ping of 126", frame(PING, b"\xfe" * 126), (1002,)),
        Case("a pong of 126", frame(PONG, b"\xfe" * 126), (1002,)),
        Case("a close of 126", close(1000, b"x" * 124), (1002,)),
        Case("a pong nobody asked for", frame(PONG, b"hi"), (Pong(b"hi"),)),
        Case(
            "ten pings", b"".join(frame(PING, b"%d" % i) for i in range(10)), tuple(Ping(b"%d" % i) for i in range(10))
        ),
        Case("a fragmented ping", frame(PING, b"a", last=False) + frame(CONTINUATION, b"b"), (1002,)),
        Case("a fragmented pong", frame(PONG, b"a", last=False), (1002,)),
        Case("a fragmented close", frame(CLOSE, last=False), (1002,)),
    ]


def fragments() -> list[Case]:
    start, middle, end = frame(TEXT, b"a", last=False), frame(CONTINUATION, b"b", last=False), frame(CONTINUATION, b"c")
    return [
        Case("two fragments", start + end, ("ac",)),
        Case("three fragments", start + middle + end, ("abc",)),
        Case("binary fragments", frame(BINARY, b"\xff", last=False) + end, (b"\xffc",)),
        Case("empty fragments", frame(TEXT, last=False) + frame(CONTINUATION, last=False) + frame(CONTINUATION), ("",)),
        Case("a hundred fragments", start + middle * 98 + end, ("a" + "b" * 98 + "c",)),
        Case("a ping between", start + frame(PING, b"?") + end, (Ping(b"?"), "ac")),
        Case("a pong between", start + frame(PONG, b"!") + end, (Pong(b"!"), "ac")),
        Case("a close between", start + close(1001), (Close(1001, ""),)),
        Case("twice in a row", (start + end) * 2, ("ac", "ac")),
        Case("an end without a start", end, (1002,)),
        Case("a middle without a start", middle, (1002,)),
        Case("an end too many", start + end + end, ("ac", 1002)),
        Case("a text within a text", start + frame(TEXT, b"x"), (1002,)),
        Case("a binary within a text", start + frame(BINARY, b"x"), (1002,)),
        Case("a start within a text", start + start, (1002,)),
        Case("a text within a binary", frame(BINARY, b"x", last=False) + frame(TEXT, b"x"), (1002,)),
    ]


def unicode() -> list[Case]:
    good = {
        "the borders of every length": "\0\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff",
        "around the surrogates": "\ud7ff\ue000",
        "noncharacters": "\ufdd0\ufffe\uffff\U0001fffe",
        "Greek": "κόσμε",
        "a face": "🙂",
    }
    bad = {
        "a lone continuation": b"\x80",
        "ff": b"\xff",
        "an overlong slash in 2": b"\xc0\xaf",
        "an overlong slash in 3": b"\xe0\x80\xaf",
        "an overlong slash in 4": b"\xf0\x80\x80\xaf",
        "an overlong zero": b"\xc0\x80",
        "the largest overlong of 3": b"\xe0\x9f\xbf",
        "a high surrogate": b"\xed\xa0\x80",
        "a low surrogate": b"\xed\xbf\xbf",
        "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
        "beyond the last": b"\xf4\x90\x80\x80",
        "five bytes": b"\xf8\x88\x80\x80\x80",
        "truncated after 1 of 2": b"ok\xce",
        "truncated after 3 of 4": b"ok\xf0\x9f\x99",
        "a start in place of a continuation": b"\xf0\x9f\x99A",
    }
    face = "🙂".encode()
    one_by_one = (
        frame(TEXT, face[:1], last=False)
        + frame(CONTINUATION, face[1:2], last=False)
        + frame(CONTINUATION, face[2:3], last=False)
        + frame(CONTINUATION, face[3:])
    )
    return [
        *(Case(name, frame(TEXT, text.encode()), (text,)) for name, text in good.items()),
        *(Case(name, frame(TEXT, data), (1007,)) for name, data in bad.items()),
        *(
            Case(f"{name}, in fragments", frame(TEXT, data[:1], last=False) + frame(CONTINUATION, data[1:]), (1007,))
            for name, data in bad.items()
        ),
        Case("a face in four fragments", one_by_one, ("🙂",)),
        Case("a face and a ping in it", one_by_one[:7] + frame(PING) + one_by_one[7:], (Ping(b""), "🙂")),
        Case("no UTF-8 in a binary", frame(BINARY, b"\xff\xfe"), (b"\xff\xfe",)),
        Case("good, bad, good", frame(TEXT, b"a") + frame(TEXT, b"\xff") + frame(TEXT, b"b"), ("a", 1007)),
    ]


VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


def closes() -> list[Case]:
    return [
        Case("a close without a code", frame(CLOSE), (Close(NO_CODE, ""),)),
        Case("a close of one byte", frame(CLOSE, b"\x03"), (1002,)),
        *(Case(f"a close with {code}", close(code), (Close(code, ""),)) for code in VALID_CODES),
        *(Case(f"a close with {code}", close(code), (1002,)) for code in INVALID_CODES),
        Case("a close with a reason", close(1000, "adiós".encode()), (Close(1000, "adiós"),)),
        Case("a close with the longest reason", close(1000, b"x" * 123), (Close(1000, "x" * 123),)),
        Case("a close with half a letter", close(1000, b"\xce"), (1007,)),
        Case("a text after the close", close(1000) + frame(TEXT, b"late"), (Close(1000, ""),)),
        Case("nonsense after the close", close(1000) + b"\xff" * 40, (Close(1000, ""),)),
        Case("a second close", close(1000) + close(1001), (Close(1000, ""),)),
        Case("a text, then a close", frame(TEXT, b"stop") + close(1000), ("stop", Close(1000, ""))),
    ]


def limits() -> list[Case]:
    half = b"x" * (LARGEST // 2)
    return [
        Case("one byte too long", announced(TEXT, LARGEST + 1), (1009,)),
        Case("2 GiB announced", announced(BINARY, 1 << 31), (1009,)),
        Case("2 GiB announced after a text", frame(TEXT, b"x") + announced(TEXT, 1 << 31), ("x", 1009)),
        Case("fragments just short enough", frame(BINARY, half, last=False) + frame(CONTINUATION, half), (half * 2,)),
        Case("fragments too long", frame(BINARY, half, last=False) + announced(CONTINUATION, len(half) + 1), (1009,)),
        Case(
            "a ping is no part of a message",
            frame(BINARY, half * 2, last=False) + frame(PING, b"?") + frame(CONTINUATION),
            (Ping(b"?"), half * 2),
        ),
        Case("a long message does not shorten the next", frame(BINARY, half * 2) * 2, (half * 2, half * 2)),
    ]


CONFORMANCE = [
    *sizes(),
    *masks(),
    *headers(),
    *control(),
    *fragments(),
    *unicode(),
    *closes(),
    *limits(),
]
every_case = pytest.mark.parametrize("case", CONFORMANCE, ids=lambda case: case.name)


def meaning(received: list[Received]) -> tuple[object, ...]:
    """As a case has it: a violation by its code alone."""
    return tuple(item.code if isinstance(item, Violation) else item for item in received)


def fed(decoder: FrameDecoder, *pieces: bytes) -> list[Received]:
    return [item for piece in pieces for item in decoder.feed(piece)]


@every_case
def test_a_stream_means_what_the_standard_says(case: Case) -> None:
    assert meaning(FrameDecoder(LARGEST).feed(case.wire)) == case.means


@every_case
def test_a_stream_means_the_same_when_it_trickles(case: Case) -> None:
    step = 1 if len(case.wire) < 1000 else 997
    pieces = [case.wire[at : at + step] for at in range(0, len(case.wire), step)]
    assert meaning(fed(FrameDecoder(LARGEST), *pieces)) == case.means


@every_case
def test_after_its_end_a_stream_means_nothing(case: Case) -> None:
    decoder = FrameDecoder(LARGEST)
    decoder.feed(case.wire)
    over = isinstance(case.means[-1], int | Close)
    assert decoder.feed(frame(TEXT, b"still there?")) == ([] if over else ["still there?"])


def test_a_violation_is_seen_before_the_payload_comes() -> None:
    for header in (b"\xc1\x80", b"\x81\x05", b"\x83\x80", b"\x89\xfe", b"\x80\x80"):
        [violation] = FrameDecoder(LARGEST).feed(header)
        assert isinstance(violation, Violation)


def test_a_violation_does_not_repeat_what_was_sent() -> None:
    [violation] = FrameDecoder(LARGEST).feed(frame(TEXT, b"my PIN is 1234\xff"))
    assert violation == Violation(1007, "a text is not UTF-8")


def test_a_message_in_small_pieces_costs_time_in_proportion() -> None:
    """Were what has come copied for every piece that comes, this would copy 2 TiB, and never end."""
    payload = bytes(range(256)) * (1 << 16)
    wire = announced(BINARY, len(payload), key=bytes(4)) + payload
    decoder = FrameDecoder(len(payload))
    assert fed(decoder, *(wire[at : at + 64] for at in range(0, len(wire), 64))) == [payload]


def test_fragments_without_end_cost_no_memory() -> None:
    decoder = FrameDecoder(LARGEST)
    decoder.feed(frame(TEXT, b"x", last=False))
    flood = frame(CONTINUATION, last=False) * 1000
    tracemalloc.start()
    try:
        for _ in range(20):
            assert decoder.feed(flood) == []
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 1000  # bytes, after 20,000 fragments


# --- Any stream ----------------------------------------------------------------------------------------------------

keys = st.binary(min_size=4, max_size=4)
control_frames = st.one_of(
    st.builds(Ping, st.binary(max_size=125)),
    st.builds(Pong, st.binary(max_size=125)),
)


@st.composite
def messages_in_frames(draw: st.DrawFn) -> tuple[bytes, list[Received]]:
    """A message in one frame or several, with pings and pongs in between, and what it means."""
    message: str | bytes = draw(st.one_of(st.text(max_size=300), st.binary(max_size=300)))
    data = message.encode() if isinstance(message, str) else message
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    wire, meanings = b"", list[Received]()
    for i, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(data)], strict=True)):
        opcode = CONTINUATION if i else TEXT if isinstance(message, str) else BINARY
        wire += frame(opcode, data[start:end], last=i == len(cuts), key=draw(keys))
        if i < len(cuts) and draw(st.booleans()):
            item = draw(control_frames)
            wire += frame(PING if isinstance(item, Ping) else PONG, item.payload, key=draw(keys))
            meanings.append(item)
    return wire, [*meanings, message]


streams = st.lists(messages_in_frames(), max_size=6).map(
    lambda parts: (b"".join(wire for wire, _ in parts), [item for _, items in parts for item in items])
)


def cut(wire: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    return [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@given(streams, st.data())
def test_where_the_network_cuts_a_stream_does_not_matter(
    stream: tuple[bytes, list[Received]], data: st.DataObject
) -> None:
    wire, meanings = stream
    assert fed(FrameDecoder(LARGEST), *cut(wire, data)) == meanings


@st.composite
def broken_streams(draw: st.DrawFn) -> bytes:
    """Anything at all, or a good stream with a few bytes wrong: deeper in than plain chance would get."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=500))
    wire = bytearray(draw(streams)[0])
    for _ in range(draw(st.integers(1, 3))):
        if wire:
            wire[draw(st.integers(0, len(wire) - 1))] = draw(st.integers(0, 255))
    return bytes(wire) + draw(st.binary(max_size=20))


@given(broken_streams(), st.data())
def test_nonsense_waits_or_ends_once(wire: bytes, data: st.DataObject) -> None:
    decoder = FrameDecoder(LARGEST)
    received = fed(decoder, *cut(wire, data))
    ends = [item for item in received if isinstance(item, Close | Violation)]
    assert ends == [] or ends == [received[-1]]
    assert received == FrameDecoder(LARGEST).feed(wire)
    if ends:
        assert decoder.feed(frame(PING)) == []


# --- What we send --------------------------------------------------------------------------------------------------


def parsed(wire: bytes) -> tuple[int, bytes]:
    """The opcode and payload of a server's only frame, read without the module under test."""
    assert wire[0] & 0x70 == 0
    assert wire[0] & 0x80
    assert not wire[1] & 0x80
    width = {126: 2, 127: 8}.get(wire[1], 0)
    length = int.from_bytes(wire[2 : 2 + width]) if width else wire[1]
    assert len(wire) == 2 + width + length
    assert width == (0 if length < 126 else 2 if length < 65536 else 8)
    return wire[0] & 0x0F, wire[2 + width :]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 << 20])
def test_messages_are_framed_at_every_size(size: int) -> None:
    assert parsed(encode("x" * size)) == (TEXT, b"x" * size)
    assert parsed(encode(b"\xff" * size)) == (BINARY, b"\xff" * size)


@given(st.text())
def test_text_comes_back_as_it_went(text: str) -> None:
    opcode, payload = parsed(encode(text))
    assert opcode == TEXT
    assert FrameDecoder(LARGEST).feed(frame(TEXT, payload)) == [text]


def test_pings_and_pongs_are_framed() -> None:
    assert parsed(encode_ping(b"?")) == (PING, b"?")
    assert parsed(encode_pong(b"!" * 125)) == (PONG, b"!" * 125)


@pytest.mark.parametrize("encoder", [encode_ping, encode_pong])
def test_a_control_frame_is_refused_when_too_long(encoder: object) -> None:
    assert callable(encoder)
    with pytest.raises(ValueError, match="125"):
        encoder(b"x" * 126)


@pytest.mark.parametrize("code", VALID_CODES)
def test_a_close_says_its_code_and_reason(code: int) -> None:
    assert parsed(encode_close(code, "adiós")) == (CLOSE, code.to_bytes(2) + "adiós".encode())


def test_a_close_can_do_without_a_code() -> None:
    assert parsed(encode_close(NO_CODE, "unheard")) == (CLOSE, b"")


@pytest.mark.parametrize("code", [code for code in INVALID_CODES if code != NO_CODE])
def test_a_close_refuses_a_code_that_must_not_travel(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=100))
def test_a_long_reason_is_cut_between_characters(reason: str) -> None:
    _, payload = parsed(encode_close(1000, reason))
    said = payload[2:].decode()
    assert reason.startswith(said)
    rest = reason[len(said) :]
    assert len(payload) <= 125
    assert not rest or len((said + rest[0]).encode()) > 123


def test_a_reason_that_is_no_text_is_still_said() -> None:
    assert parsed(encode_close(1000, "a\ud800b")) == (CLOSE, b"\x03\xe8a?b")
