"""A call to try the server with, started from the page."""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

from flask import Blueprint, Response

from relay.errors import RelayError
from relay.passes import Scope
from relay.web.access import needs
from relay.web.api import json_answer, later
from relay.web.openapi import DEMO_CALL


class Trial(Protocol):
    """Plays a call through this server, one at a time."""

    @property
    def why_not(self) -> str:
        """Why it cannot be had here, in one sentence; empty when it can."""

    def begin(self) -> str:
        """Begins to play it; gives its SID once its audio flows. Raises RelayError with the reason when it cannot."""


def trial(demo: Trial) -> Blueprint:
    """Where it is asked for."""
    part = Blueprint("trial", __name__)

    @part.post(DEMO_CALL)
    @needs(Scope.TRY)
    def demo_call() -> Response:
        try:
            call_sid = demo.begin()
        except RelayError as why_not:
            raise later(str(why_not)) from None
        return json_answer({"call_sid": call_sid}, HTTPStatus.ACCEPTED)

    return part
