"""For tests of who may see: a browser, so far as cookies and the headers go by which it says whose page asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.cookies import Morsel, SimpleCookie
from urllib.parse import urlencode, urlsplit

from tests.serving import Answer

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass
class Browser:
    """Keeps the cookies that it is sent, for one server, and follows no redirects."""

    url: str
    cookies: dict[str, Morsel[str]] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        """Somebody types an address, or follows a link of ours."""
        return self.ask(path, "GET", None, HTML | headers)

    def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
        """Somebody sends a form of ours."""
        ours = {"Origin": self.url, "Content-Type": "application/x-www-form-urlencoded"}
        return self.ask(path, "POST", urlencode(form or {}), HTML | ours | headers)

    def log_in(self, password: str, **form: str) -> Answer:
        """The form of /login."""
        return self.post("/login", {"password": password, **form})

    def ask(self, path: str, method: str, body: str | None, headers: dict[str, str]) -> Answer:
        """One request with the cookies, and what comes of it."""
        if self.cookies and "Cookie" not in headers:
            headers |= {"Cookie": "; ".join(f"{name}={kept.value}" for name, kept in self.cookies.items())}
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            for name, kept in SimpleCookie(response.headers.get("Set-Cookie", "")).items():
                self.cookies[name] = kept
                if kept["max-age"] == "0":
                    del self.cookies[name]
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()
