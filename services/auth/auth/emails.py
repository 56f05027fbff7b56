"""E-mail addresses: one spelling per mailbox.

An address is compared without case and only ASCII is taken, an internationalised domain in its
`xn--` form. Look-alike letters therefore cannot make a second account that reads like the first.
"""

from __future__ import annotations

import re

MAX_LENGTH = 254
_MAX_LOCAL = 64
# The pattern of the HTML standard's <input type=email>, and a domain of two labels at least.
_ADDRESS = re.compile(
    r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+"
    r"@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+",
    re.ASCII,
)


def normalise(text: str) -> str:
    """Return the one spelling of an address: trimmed and in lower case.

    Raises:
        ValueError: it is no address that mail could be sent to.
    """
    # Checked first: some letters outside of ASCII have an ASCII lower case (the Kelvin sign).
    address = text.strip().lower() if text.isascii() else ""
    local = address.partition("@")[0]
    if (
        len(address) > MAX_LENGTH
        or len(local) > _MAX_LOCAL
        or not _ADDRESS.fullmatch(address)
        or local.startswith(".")
        or local.endswith(".")
        or ".." in local
    ):
        raise ValueError("not an e-mail address such as ada@example.com")
    return address
