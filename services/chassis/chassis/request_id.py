"""Request ids: one id names a request in every log line of every service it touches.

An id that a caller sends in `X-Request-ID` is kept when it is short and plain, else replaced:
it goes into logs and headers, so it must not carry anything but a name.
"""

from __future__ import annotations

import re

from chassis.ids import new_id

HEADER = b"x-request-id"

_plain = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}").fullmatch


def request_id(header: bytes | None) -> str:
    """Return the id of a request whose `X-Request-ID` header is `header`."""
    if header is not None and _plain(header):
        return header.decode("ascii")
    return new_id()
