"""The three lines that place a first order, for any POSIX shell with curl and Python."""

from __future__ import annotations

from collections.abc import Sequence

ITEM = "stoneware-mug"
_SIGN_UP = (
    "EMAIL=me-$(date +%s)-$$@example.org PASSWORD=paper-lamp-by-the-window; "
    "curl -sS {url}/v1/users -H 'Content-Type: application/json' "
    """-d '{{"email": "'$EMAIL'", "password": "'$PASSWORD'"}}'; echo"""
)
_LOG_IN = (
    "TOKEN=$(curl -sS {url}/v1/token -d grant_type=password -d username=$EMAIL "
    "-d password=$PASSWORD | "
    """python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')"""
)
_ORDER = (
    "curl -sS {url}/v1/orders -H 'Content-Type: application/json' "
    """-H "Authorization: Bearer $TOKEN" """
    """-d '{{"lines": [{{"item_id": "{item}", "quantity": 2}}]}}'; echo"""
)


def order_lines(url: str) -> list[str]:
    """Sign up, log in, order: a new account each time they are pasted."""
    return [line.format(url=url, item=ITEM) for line in (_SIGN_UP, _LOG_IN, _ORDER)]


def closing_lines(url: str) -> Sequence[str]:
    """What is printed below the table."""
    return ["", "Your first order, line by line (or `make demo`):", "", *order_lines(url), ""]
