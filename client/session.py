"""One user's session with Superset's HTTP API: login, CSRF token, repeated requests, and what an answer says is wrong."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

import httpx
import prison  # pyright: ignore[reportMissingTypeStubs]
from tenacity import (
    Future,
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_not_result,
    retry_if_result,
    stop_before_delay,
)

from client.errors import AccessDeniedError, LoginError, UnexpectedAnswerError, UnreachableError, UsageError
from client.states import Backoff

T = TypeVar("T")
#: Pauses between attempts of a request that did not get through.
RETRY = Backoff(first=0.1, factor=2, cap=2)
#: A proxy's words for "no answer from Superset".
_GATEWAY = frozenset({502, 503, 504})
_TOO_MANY = 429
#: Superset's type of error where a query could not be handed to a worker, or was not taken.
REFUSED = "ASYNC_WORKERS_ERROR"


class Session:
    """See `client.superset_client.SupersetClient`, which says what is repeated and what is not.

    `clock_ahead_seconds` is how far the server's clock was ahead of ours at its last answer, to about a second.
    """

    def __init__(
        self, url: str, username: str | None, password: str | None, token: str | None, retry_seconds: float
    ) -> None:
        if (token is None) == (username is None or password is None):
            raise UsageError("a client needs either a username and a password, or a token")
        self.url = checked_url(url)
        self.username = username
        self.clock_ahead_seconds = 0.0
        self._password = password
        self._token = token
        self._retry_seconds = retry_seconds
        self._csrf: str | None = None
        self._reached = False
        self._options: dict[str, Any] = {
            "base_url": self.url,
            # Over https, Superset wants a referrer of its own origin.
            "headers": {"Accept": "application/json", "Referer": f"{self.url}/", "User-Agent": "superset-async"},
            "trust_env": not _loopback(httpx.URL(self.url).host),
            "verify": _trust(),
        }
        self._http = httpx.Client(**self._options)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def login(self) -> None:
        """Log in (or use the token) and get the CSRF token; LoginError, UnreachableError, UnexpectedAnswerError."""
        if self._token is None:
            # Apart from the session's cookies: a request that is not logged in starts a new event channel for charts, and
            # the events of jobs already submitted would never be seen.
            with httpx.Client(**self._options) as http:
                credentials = {"username": self.username, "password": self._password, "provider": "db", "refresh": False}
                answer = self._send(http, "POST", "/api/v1/security/login", body=credentials)
            if answer.status_code == 401:
                raise LoginError(f"{self.url} refuses user {self.username!r}: wrong username or password, or inactive user")
            with self.shape(answer, "is this the address of a Superset?"):
                bearer = str(json_object(answer)["access_token"])
        else:
            bearer = self._token
        self._http.headers["Authorization"] = f"Bearer {bearer}"
        answer = self._send(self._http, "GET", "/api/v1/security/csrf_token/")
        if _login_refused(answer):
            raise LoginError(f"{self.url} refuses the token: it is invalid or has expired")
        with self.shape(answer, "is this the address of a Superset?"):
            self._csrf = str(json_object(answer)["result"])

    def ensure_login(self) -> None:
        """Log in where that has not been done."""
        if self._csrf is None:
            self.login()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float = 60.0,
    ) -> httpx.Response:
        """The answer to a logged-in request, of any status but those for which there is an exception.

        `query` goes as rison, the encoding of Superset's API. Raises LoginError, AccessDeniedError, UnreachableError.
        """
        self.ensure_login()
        if query is not None:
            parameters = {"q": _rison(query)}

        def send() -> httpx.Response:
            return self._send(
                self._http, method, path, parameters=parameters, body=body, extra=headers, read_timeout=read_timeout
            )

        answer = send()
        if _login_refused(answer):
            if self._token is not None:
                raise LoginError(f"{self.url} refuses the token: it is invalid or has expired")
            self.login()
            answer = send()
            if _login_refused(answer):
                raise LoginError(f"{self.url} refuses the login of user {self.username!r} that it has just accepted")
        if answer.status_code == 403:
            who = f"user {self.username!r}" if self.username else "the token's user"
            raise AccessDeniedError(f"{self.url}: {who} may not do this: {reason(answer)}")
        return answer

    @contextmanager
    def shape(self, answer: httpx.Response, consequence: str = "it cannot be used") -> Generator[None]:
        """Around reading an answer: a status or a shape that Superset 6.1 does not have is an UnexpectedAnswerError."""
        if answer.status_code >= 300:
            self.unexpected(answer, consequence)
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            self.unexpected(answer, f"not an answer of Superset 6.1 ({type(error).__name__}: {error})")

    def unexpected(self, answer: httpx.Response, consequence: str) -> NoReturn:
        """Raise UnexpectedAnswerError for `answer`, saying what follows from it."""
        request = f"{answer.request.method} {answer.request.url.path}"
        raise UnexpectedAnswerError(
            f"{self.url} answered {answer.status_code} to {request} ({reason(answer)}): {consequence}", answer.status_code
        )

    def _send(
        self,
        http: httpx.Client,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        extra: Mapping[str, str] | None = None,
        read_timeout: float = 60.0,
    ) -> httpx.Response:
        """One request, repeated where that is safe and may help."""
        headers = {**(extra or {}), **({"X-CSRFToken": self._csrf} if method != "GET" and self._csrf else {})}
        patience = self._retry_seconds if self._reached else 0.0

        def once() -> httpx.Response:
            nonlocal patience
            cookies = list(http.cookies.jar)
            timeout = httpx.Timeout(10.0, read=read_timeout)
            answer = http.request(method, path, params=parameters, json=body, headers=headers, timeout=timeout)
            if answer.status_code == _TOO_MANY:
                # The address is right, so its rate limit is worth waiting out from the first request on (log-ins have one).
                patience = self._retry_seconds
            self._reached = True
            self._read_clock(answer)
            if _login_refused(answer):
                # Its cookies open a new event channel; the session's own must survive an expired login.
                http.cookies.clear()
                for cookie in cookies:
                    http.cookies.jar.set_cookie(cookie)
            elif _loopback(http.base_url.host):
                # As browsers do: it may be a port-forward to a stack that is reached over HTTPS, and has cookies for that alone.
                for cookie in http.cookies.jar:
                    cookie.secure = False
            return answer

        def over(state: RetryCallState) -> bool:
            # Made anew each time: an answer may have changed the patience.
            return stop_before_delay(patience)(state)

        repeatable = method == "GET"
        sending = Retrying(
            retry=retry_if_exception(lambda error: repeatable and isinstance(error, httpx.TransportError))
            | retry_if_result(lambda answer: _refused_unread(answer, repeatable=repeatable)),
            wait=RETRY,
            stop=over,
            retry_error_callback=last_outcome,
        )
        try:
            answer = sending(once)
        except httpx.TransportError as error:
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            detail = str(error) or type(error).__name__
            raise UnreachableError(f"no answer from {self.url} ({detail}): is Superset up there?", sent=sent) from None
        if answer.status_code in _GATEWAY and REFUSED not in error_kinds(answer):
            said = "; ".join(messages(_body(answer)))
            # Superset's own words, where a store behind it is away, say what follows; a proxy has none.
            proxy = f"no answer from Superset at {self.url}: its proxy says {answer.status_code}"
            raise UnreachableError(f"Superset at {self.url} cannot answer now: {said}" if said else proxy, sent=True)
        return answer

    def _read_clock(self, answer: httpx.Response) -> None:
        try:
            self.clock_ahead_seconds = parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
        except (KeyError, ValueError):
            self.clock_ahead_seconds = 0.0


def ask_until(ask: Callable[[], T], holds: Callable[[T], bool], pauses: Backoff, seconds: float) -> T:
    """The first answer of `ask` for which `holds`; the last one where none came within `seconds`. Asks at least once."""
    asking = Retrying(
        retry=retry_if_not_result(holds),
        wait=pauses,
        stop=stop_before_delay(seconds),
        retry_error_callback=last_outcome,
    )
    return asking(ask)


def last_outcome(state: RetryCallState) -> Any:
    """What the last attempt returned, or raised."""
    return cast("Future", state.outcome).result()


def _refused_unread(answer: httpx.Response, *, repeatable: bool) -> bool:
    """Whether a proxy or a rate limit refused a request before Superset read it, so that it may be sent again.

    Superset's own refusal of a query says what to do, and is the caller's to know.
    """
    refused = answer.status_code == _TOO_MANY or (repeatable and answer.status_code in _GATEWAY)
    return refused and REFUSED not in error_kinds(answer)


def checked_url(url: str) -> str:
    """`url` without its last slash; UsageError where it is none, or carries a password."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"url {url!r} is not one: {error}") from None
    if parsed.userinfo:
        raise UsageError("the url carries a username or password, which other users of this machine can read: leave it out")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"url {url!r} must be http://host[:port] or https://host[:port]")
    return url.rstrip("/")


def json_object(answer: httpx.Response, parse_float: Callable[[str], float | Decimal] = float) -> dict[str, Any]:
    """The answer's JSON object; ValueError where it is none. `parse_float` reads its numbers with a fraction or an exponent."""
    value = answer.json(parse_float=parse_float)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise ValueError(f"wants a JSON object, got {type(value).__name__}")


def exact_number(text: str) -> float | Decimal:
    """A number as a float where that has each of its digits, else as a Decimal.

    Up to 15 significant digits a double has each (IEEE 754), so that most numbers are read once.
    """
    number = float(text)
    return number if len(text) <= 15 or Decimal(text) == Decimal(repr(number)) else Decimal(text)


def error_kinds(answer: httpx.Response) -> set[str]:
    """Superset's types of the errors in an answer, such as `ASYNC_WORKERS_ERROR`."""
    return {str(error["error_type"]) for error in _errors(_body(answer)) if error.get("error_type")}


def messages(body: Mapping[str, Any]) -> list[str]:
    """What a body says is wrong: Superset's error list, its `message` or `error`, or the login library's `msg`."""
    listed = [str(error["message"]) for error in _errors(body) if error.get("message")]
    single = [str(body[key]) for key in ("message", "error", "msg") if body.get(key)]
    return listed or single


def reason(answer: httpx.Response) -> str:
    """What an answer says is wrong, on one line of at most 1000 characters."""
    text = "; ".join(messages(_body(answer)))
    if not text:
        kind = answer.headers.get("Content-Type", "no content type").partition(";")[0]
        text = answer.text if kind == "application/json" else f"an answer of {kind}"
    return " ".join(text.split())[:1000]


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        return json_object(answer)
    except ValueError:
        return {}


def _errors(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    errors = body.get("errors")
    if not isinstance(errors, list):
        return []
    listed = cast("list[object]", errors)
    return [cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": str(error)} for error in listed]


def _login_refused(answer: httpx.Response) -> bool:
    """Whether the request was refused for its login, before anything was done.

    401; the way to the login page; a malformed token, which the login library answers with 422 and a body of its own; a
    session or CSRF token that has expired.
    """
    if answer.status_code in (401, 302):
        return True
    if answer.status_code == 422:
        return set(_body(answer)) == {"msg"}
    return answer.status_code == 400 and "CSRF" in reason(answer)


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that are trusted, of SSL_CERT_FILE or SSL_CERT_DIR where set; read once, since that is slow."""
    return httpx.create_ssl_context()


def _loopback(host: str) -> bool:
    """Whether `host` is this machine, where no proxy of the environment belongs in between."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _rison(value: Mapping[str, Any]) -> str:
    plain = {name: list(cast("Sequence[Any]", part)) if isinstance(part, tuple) else part for name, part in value.items()}
    return cast(str, prison.dumps(plain))  # pyright: ignore[reportUnknownMemberType]
