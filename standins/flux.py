"""A speech service on this machine that speaks as Flux, Deepgram's `/v2/listen`, and insists on what is documented.

A client's breach of the documentation is answered as documented, and noted in `violations`. Where the documentation
says nothing, a comment says what was done instead.

Sources, all below https://developers.deepgram.com: /reference/speech-to-text/listen-flux, /docs/flux/quickstart,
/docs/flux/state, /docs/flux/configuration, /docs/flux/configure, /docs/flux/force-end-turn, /docs/flux/close-stream and
/docs/errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from websockets.http11 import Request, Response

from standins.conversation import Client
from standins.faults import CloseFrame, Drop, Fault, Refusal
from standins.flux_conversation import FluxConversation, Rules
from standins.flux_options import BadQuery, FluxOptions
from standins.ledger import Connection
from standins.listen_messages import refusal as refusal_body
from standins.program import run
from standins.server import Faults, Refused, SpeechServer, json_response

__all__ = ["CloseFrame", "Connection", "Drop", "Fault", "Faults", "FluxServer", "Refusal", "Rules"]

PATH: Final = "/v2/listen"


class FluxServer(SpeechServer[FluxOptions, Rules]):
    """Deepgram's conversational transcription."""

    def documented_rules(self) -> Rules:
        """Deepgram's numbers."""
        return Rules()

    def examine(self, request: Request, fault: Fault) -> FluxOptions:
        """What the query asks for."""
        url = urlsplit(request.path)
        if url.path != PATH:
            raise Refused(Refusal(404, "NOT_FOUND", "There is nothing at this path."), is_violation=True)
        if not self._is_authorized(request.headers.get_all("Authorization")):
            raise Refused(Refusal(401, "INVALID_AUTH", "Invalid credentials."))
        if fault.refuse is not None:
            raise Refused(fault.refuse)
        try:
            return FluxOptions.parse(url.query)
        except BadQuery as bad:
            raise Refused(Refusal(400, "INVALID_QUERY_PARAMETER", str(bad)), is_violation=True) from bad

    def _is_authorized(self, values: Sequence[str]) -> bool:
        scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        return scheme.lower() == "token" and self.is_the_key(key)  # RFC 9110, 11.1: the scheme's case means nothing

    def converse(self, client: Client, options: FluxOptions) -> FluxConversation:
        """The conversation with a client that was let in."""
        return FluxConversation(client, options, self.rules)

    def word_refusal(self, refusal: Refusal, connection: Connection) -> Response:
        """Deepgram's error, see https://developers.deepgram.com/docs/errors."""
        body = refusal_body(refusal.err_code, refusal.message, connection.request_id)
        return json_response(
            refusal.status, body, {"dg-request-id": connection.request_id, "dg-error": refusal.message}
        )

    def sign(self, response: Response, connection: Connection) -> None:
        """Puts the request's id into the answer, which Deepgram does whatever the answer is."""
        response.headers["dg-request-id"] = connection.request_id


def main() -> None:
    """Runs the service with a recogniser, until it is interrupted."""
    run("flux", "Deepgram Flux", lambda ear, key, port: FluxServer(ear=ear, key=key, port=port))


if __name__ == "__main__":
    main()
