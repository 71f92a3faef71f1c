"""When a request is sent again: after 429 and 503, and after a connection that failed or broke."""

from __future__ import annotations

import email.utils
import random
import time
from typing import Optional

import httpx

# Every request of this package may be sent twice: POST requests have an Idempotency-Key. A server that is silent for
# the time-out is not asked again.
CONNECTION_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
STATUSES = (429, 503)
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
# A server that asks for more patience than this gets an error raised to the caller instead.
LONGEST_RETRY_AFTER_S = 60.0


class Retries:
    """The retries of one request."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.made = 0

    def after_failure(self) -> Optional[float]:
        """Seconds to wait before the next attempt; None if there is none."""
        if self.made >= self.limit:
            return None
        longest = min(FIRST_DELAY_S * float(2**self.made), LONGEST_DELAY_S)
        self.made += 1
        # Jitter, so that clients of a restarted server do not come back all at once.
        return random.uniform(longest / 2, longest)

    def after_response(self, response: httpx.Response) -> Optional[float]:
        """Likewise after a response; None for a status that is final."""
        if response.status_code not in STATUSES:
            return None
        asked = retry_after(response)
        if asked is not None and asked > LONGEST_RETRY_AFTER_S:
            return None
        delay = self.after_failure()
        if delay is None or asked is None:
            return delay
        return asked + random.uniform(0, asked / 10)


def retry_after(response: httpx.Response) -> Optional[float]:
    """Seconds of the header Retry-After, which has a number or a date (RFC 9110, section 10.2.3)."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, float(moment.timestamp()) - time.time())
