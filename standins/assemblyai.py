"""A speech service on this machine that speaks AssemblyAI's streaming `/v3/ws`, and insists on what is documented.

Tests give it an ear that hears numbers and faults to misbehave by; `python -m standins.assemblyai` gives it a real, if
poor, recogniser. A client's breach of the documentation is answered as documented, and noted in `violations`.

Sources, all below https://www.assemblyai.com/docs/streaming: /message-sequence, /common-session-errors-and-closures,
/rate-limits, /turn-detection and /universal-streaming/message-sequence.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Request, Response

from standins.assemblyai_conversation import Rules, StreamingConversation
from standins.assemblyai_messages import refusal as refusal_body
from standins.assemblyai_options import BadQuery, StreamingOptions
from standins.conversation import Client
from standins.ear import EarFactory
from standins.faults import CloseFrame, Drop, Fault, Refusal
from standins.ledger import Connection
from standins.program import run
from standins.server import Faults, Refused, SpeechServer, json_response

__all__ = ["AssemblyAIServer", "CloseFrame", "Connection", "Drop", "Fault", "Faults", "Refusal", "Rules"]

PATH: Final = "/v3/ws"
HTTP_STATUSES: Final = range(400, 600)  # a refusal beyond them is the code of a close frame


class AssemblyAIServer(SpeechServer[StreamingOptions, Rules]):
    """AssemblyAI's streaming transcription."""

    def __init__(
        self,
        *,
        ear: EarFactory,
        key: str | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        rules: Rules | None = None,
        faults: Faults = (),
    ) -> None:
        super().__init__(ear=ear, key=key, port=port, host=host, rules=rules, faults=faults)
        self._sessions = threading.Lock()  # over the two below
        self._open: list[Connection] = []
        self._begun: deque[float] = deque()  # when the sessions of the last minute were

    def documented_rules(self) -> Rules:
        """AssemblyAI's numbers."""
        return Rules()

    def examine(self, request: Request, fault: Fault) -> StreamingOptions:
        """What the query asks for. Who is refused with a close frame is let in, and told then."""
        url = urlsplit(request.path)
        if url.path != PATH:
            raise Refused(Refusal(404, "", "There is nothing at this path"), is_violation=True)
        refusal = fault.refuse
        if not self._is_authorized(request.headers.get_all("Authorization"), url.query):
            refusal = self.rules.wrong_key
        if refusal is not None and refusal.status in HTTP_STATUSES:
            raise Refused(refusal)
        if refusal is not None:
            return StreamingOptions(refusal=refusal)
        try:
            return StreamingOptions.parse(url.query)
        except BadQuery as bad:
            raise Refused(Refusal(400, "", str(bad)), is_violation=True) from bad

    def _is_authorized(self, keys: Sequence[str], query: str) -> bool:
        """The bare key in a header, or a token in the query, for which our key does here."""
        given = [*keys, *parse_qs(query).get("token", ())]
        return len(given) == 1 and " " not in given[0] and self.is_the_key(given[0])

    def converse(self, client: Client, options: StreamingOptions) -> StreamingConversation:
        """The conversation with a client that was let in, if only to be told that there are too many."""
        if options.refusal is None and (excess := self._begin_session(client.connection)):
            self.ledger.complain(client.connection.name, excess)
            options = replace(options, refusal=self.rules.too_many)
        return StreamingConversation(client, options, self.rules)

    def _begin_session(self, connection: Connection) -> str | None:
        """Counts a new session; or says why it may not be begun."""
        rules, now = self.rules, time.monotonic()
        with self._sessions:
            self._open = [other for other in self._open if not other.is_over]
            while self._begun and now - self._begun[0] > rules.minute_s * rules.second_s:
                self._begun.popleft()
            if rules.sessions is not None and len(self._open) >= rules.sessions:
                return f"more than {rules.sessions} sessions at once"
            if rules.sessions_per_minute is not None and len(self._begun) >= rules.sessions_per_minute:
                return f"more than {rules.sessions_per_minute} new sessions within a minute"
            self._open.append(connection)
            self._begun.append(now)
        return None

    def word_refusal(self, refusal: Refusal, connection: Connection) -> Response:
        """An error as JSON; its form is not documented."""
        return json_response(refusal.status, refusal_body(refusal.message))


def main() -> None:
    """Runs the service with a recogniser, until it is interrupted."""
    run("assemblyai", "AssemblyAI", lambda ear, key, port: AssemblyAIServer(ear=ear, key=key, port=port))


if __name__ == "__main__":
    main()
