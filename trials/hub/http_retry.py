"""Waits for a hub that is busy or out of reach, on every request that huggingface_hub makes for models, data sets and tasks.

By itself huggingface_hub retries some requests for less than a minute: listings not at all, downloads not on a 5xx. The hub's
rate limits last five minutes; and where one request fails amid others, transformers goes on without the file if it may be
missing. So the wait is put below all of them, into the HTTP client.
"""

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlparse

_log = logging.getLogger(__name__)
_BUSY = (408, 429, 500, 502, 503, 504)
_LONGEST = 600.0  # seconds that one request waits altogether; the hub counts requests over five minutes
_UNKNOWN = 15.0  # the same while the hub has never answered: it is more likely that there is no network at all
_STEP = 60.0  # the longest single wait that the hub did not ask for
_DICE = random.Random()  # its own, not the seeded one that a trial's numbers come from


class Patience:
    """Decides how long to wait. Once it has given up, nothing waits until the hub has answered again."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep):
        self.sleep = sleep
        self.answered = False
        self.given_up = False

    def around(
        self, send: Callable[..., Any], failures: tuple[type[Exception], ...], concerned: Callable[[Any], bool]
    ) -> Callable[..., Any]:
        """`send` of an httpx client, repeated for the requests concerned while the answer is that the hub is busy, or fails."""

        def patient(request: Any, **options: Any) -> Any:
            if not concerned(request):
                return send(request, **options)
            waited, attempt = 0.0, 0
            while True:
                try:
                    response, failure = send(request, **options), None
                except failures as error:
                    response, failure = None, error
                if response is not None and response.status_code not in _BUSY:
                    self.answered, self.given_up = True, False
                    return response
                asked = asked_for(response.headers) if response is not None else 0.0
                # spread, so that workers who were told the same do not come back together
                wait = max(asked, min(2.0**attempt, _STEP)) * _DICE.uniform(1.0, 1.5)
                longest = _LONGEST if self.answered or response is not None else _UNKNOWN
                if self.given_up or waited + wait > longest:
                    self.given_up = True
                    if failure is not None:
                        raise failure
                    return response
                if response is not None:
                    response.close()
                reason = f"{response.status_code}" if response is not None else type(failure).__name__
                _log.warning("%s %s: %s; trying again in %.0f s", request.method, request.url, reason, wait)
                self.sleep(wait)
                waited, attempt = waited + wait, attempt + 1

        return patient


def asked_for(headers: Any) -> float:
    """The seconds that a response asks to wait, by Retry-After (a number or a date) or by the hub's RateLimit; 0 without."""
    from huggingface_hub.utils import parse_ratelimit_headers

    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        try:
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):  # neither a number nor a date with its zone
            return 0.0
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0


@cache
def install() -> Patience:
    """Makes huggingface_hub's requests in this process patient, once."""
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import httpx
    from huggingface_hub.utils._http import default_client_factory  # with its check of the offline mode

    patience = Patience()
    failures = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
    host = urlparse(constants.ENDPOINT).hostname or ""

    def concerned(request: Any) -> bool:
        return request.url.host == host and isinstance(request.stream, httpx.ByteStream)  # no other body can be sent twice

    def factory() -> Any:
        client = default_client_factory()
        client.send = patience.around(client.send, failures, concerned)  # type: ignore[method-assign]
        return client

    set_client_factory(factory)
    return patience
