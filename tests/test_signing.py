"""Signatures, verified by the package that receivers use."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from relay.signing import HOW_TO_MAKE_ONE, new_secret, sign, signing_keys
from tests.program import ROOT

BODY = '{"type":"gap","data":{"text":"grüß dich"}}'


def headers(signature: str, at_s: int, message_id: str = "msg_1") -> dict[str, str]:
    return {"webhook-id": message_id, "webhook-timestamp": str(at_s), "webhook-signature": signature}


def signed_with(*secrets: str, body: str = BODY) -> dict[str, str]:
    now = int(time.time())
    return headers(sign(signing_keys(",".join(secrets)), "msg_1", now, body.encode()), now)


def test_the_published_package_verifies_what_we_sign() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, signed_with(secret))["type"] == "gap"


def test_the_signature_of_a_known_message() -> None:
    """The example of the specification's own test suites."""
    key = signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@given(st.text(st.characters(codec="utf-8")), st.binary(min_size=24, max_size=64))
def test_any_body_and_any_key(body: str, key: bytes) -> None:
    now = int(time.time())
    Webhook(key).verify(body, headers(sign([key], "msg_1", now, body.encode()), now), json_parse=False)


def test_a_changed_body_or_id_is_noticed() -> None:
    secret = new_secret()
    signed = signed_with(secret)
    for body, message_id in ((BODY + " ", "msg_1"), (BODY, "msg_2")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, signed | {"webhook-id": message_id})


def test_while_secrets_change_receivers_with_either_are_served() -> None:
    new, old, other = new_secret(), new_secret(), new_secret()
    signed = signed_with(new, old)
    assert len(signed["webhook-signature"].split(" ")) == 2
    for secret in (new, old):
        Webhook(secret).verify(BODY, signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, signed)


def test_an_id_cannot_run_into_the_time() -> None:
    with pytest.raises(ValueError, match="full stop"):
        sign([b"k" * 24], "msg_1.5", 1, b"")


@pytest.mark.parametrize(
    "wrong",
    ["topsecret", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", f"whsec_{'A' * 88}", f"{new_secret()},short"],
)
def test_what_is_no_secret_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(HOW_TO_MAKE_ONE)) as refusal:
        signing_keys(wrong)
    assert wrong.removeprefix("whsec_")[:5] not in str(refusal.value) or wrong == "whsec_"


def test_padding_may_be_left_out() -> None:
    secret = new_secret()
    assert signing_keys(secret.rstrip("=")) == signing_keys(secret)


def test_the_command_that_refusals_name_makes_a_secret() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "relay.signing"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert len(signing_keys(made)) == 1
