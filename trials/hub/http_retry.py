"""Retries huggingface_hub's requests while the hub is busy or unreachable."""

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
_LONGEST = 600.0  # seconds that a request waits in total; the hub's rate limits last five minutes
_UNKNOWN = 15.0  # the same before the first answer of the hub: probably there is no network
_STEP = 60.0  # the longest single wait that the hub did not request
_DICE = random.Random()  # not the global generator, which is seeded for a trial's numbers


class Patience:
    """Decides how long to wait. After it has given up, no request waits until the hub answers again."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep):
        self.sleep = sleep
        self.first = _UNKNOWN
        """Seconds that a request waits in total before the first answer of the hub."""
        self.answered = False
        self.given_up = False

    def around(
        self, send: Callable[..., Any], failures: tuple[type[Exception], ...], concerned: Callable[[Any], bool]
    ) -> Callable[..., Any]:
        """Wraps `send` of an httpx client: repeats a request that is `concerned` while the hub is busy or `send` fails."""

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
                requested = requested_wait(response.headers) if response is not None else 0.0
                # random, so that workers with the same answer do not retry together
                wait = max(requested, min(2.0**attempt, _STEP)) * _DICE.uniform(1.0, 1.5)
                longest = _LONGEST if self.answered or response is not None else self.first
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


def requested_wait(headers: Any) -> float:
    """The seconds to wait by Retry-After (a number or a date) or by the hub's RateLimit; 0 without either."""
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
    """Installs the retries for all of huggingface_hub's requests in this process, once."""
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx
    from huggingface_hub.utils._http import default_client_factory  # with its check of the offline mode

    patience = Patience()
    failures = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
    host = urlparse(constants.ENDPOINT).hostname or ""

    def concerned(request: Any) -> bool:
        return request.url.host == host and isinstance(request.stream, httpx.ByteStream)  # another body cannot be sent twice

    def factory() -> Any:
        client = default_client_factory()
        # In the client, below all callers: huggingface_hub retries no listings and no downloads after a 5xx, and transformers
        # goes on without an optional file whose request failed.
        send = patience.around(client.send, failures, concerned)

        def patient(request: Any, **options: Any) -> Any:
            try:
                return send(request, **options)
            except failures as error:
                if not concerned(request):
                    raise
                # huggingface_hub and datasets retry a lost connection on their own, and this in no case
                raise OfflineModeIsEnabled(f"{request.url.host} cannot be reached: {error}") from error

        client.send = patient  # type: ignore[method-assign]
        return client

    set_client_factory(factory)
    return patience
