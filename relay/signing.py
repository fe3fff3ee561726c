"""Signatures by which a receiver knows that a webhook is ours, whole and new. A new secret: python -m relay.signing

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import sys
from collections.abc import Iterable
from typing import Final

from relay.settings import words

PREFIX: Final = "whsec_"
SHORTEST_KEY: Final = 24  # bytes, in the specification's words: at least 192 bits, 512 at most
LONGEST_KEY: Final = 64
NEW_KEY: Final = 32
HOW_TO_MAKE_ONE: Final = "python -m relay.signing"


def signing_keys(value: str) -> tuple[bytes, ...]:
    """The keys in secrets with commas between. Raises ValueError, which repeats none of them."""
    return tuple(_key(secret) for secret in words(value))


def new_secret() -> str:
    """A secret nobody has yet, as it stands in the settings of both sides."""
    return PREFIX + base64.b64encode(secrets.token_bytes(NEW_KEY)).decode()


def sign(keys: Iterable[bytes], message_id: str, at_s: int, body: bytes) -> str:
    """The value of `webhook-signature` for an attempt made at this Unix time: one signature for each key, so that a
    receiver that has only the old key, or only the new one, finds one it can verify."""
    if "." in message_id:
        raise ValueError("a message's id holds no full stop, which ends it in what is signed")
    signed = f"{message_id}.{at_s}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if encoded == secret or not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(
            f"{PREFIX} and {SHORTEST_KEY} to {LONGEST_KEY} random bytes in base64, with commas between several; "
            f"make one with: {HOW_TO_MAKE_ONE}"
        )
    return key


if __name__ == "__main__":
    sys.stdout.write(new_secret() + "\n")
