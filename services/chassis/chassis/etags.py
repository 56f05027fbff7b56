"""Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13)."""

import re
from typing import Annotated, Any

from fastapi import Header

from chassis.problems import Problem

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The `ETag` that the change is based on, or `*`."),
]
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="An `ETag` that is known already."),
]

ETAG_HEADER: dict[str, Any] = {
    "ETag": {
        "description": "Names this state of it; send it as `If-Match` with a change.",
        "schema": {"type": "string"},
    }
}
"""The `headers=` of an OpenAPI response that has an entity tag."""

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The client has this state already", "headers": ETAG_HEADER}
}
"""The `responses=` entry of an operation that takes `If-None-Match`."""

# etagc: %x21 / %x23-7E / obs-text
_TAG = re.compile(r'\s*(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"\s*')


def etag(version: int | str, *, weak: bool = False) -> str:
    """Return the entity tag of a version: `"3"`, or `W/"3"`.

    Raises:
        ValueError: if the version has characters that a tag may not have.
    """
    tag = f'{"W/" if weak else ""}"{version}"'
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{version!r} cannot be an entity tag")
    return tag


def _tags(header: str) -> list[tuple[bool, str]] | None:
    """Return (weak, opaque) of each tag in the list, or None if it is malformed."""
    tags: list[tuple[bool, str]] = []
    position = 0
    while position < len(header):
        match = _TAG.match(header, position)
        if match is None:
            return None
        tags.append((match["weak"] is not None, match["opaque"]))
        position = match.end()
        if position < len(header):
            if header[position] != ",":
                return None
            position += 1
    return tags


def strong_match(header: str, version: int | str) -> bool:
    """Compare strongly: both tags strong and equal; `*` matches what exists."""
    if header.strip() == "*":
        return True
    return any(not weak and opaque == str(version) for weak, opaque in _tags(header) or ())


def weak_match(header: str, version: int | str) -> bool:
    """Compare weakly: equal whether weak or strong; `*` matches what exists."""
    if header.strip() == "*":
        return True
    return any(opaque == str(version) for _, opaque in _tags(header) or ())


def require_match(if_match: str | None, version: int | str) -> None:
    """Refuse a change that is not based on `version`, the current one (no lost updates).

    Raises:
        Problem: 428 without `If-Match` (RFC 6585); 412 if it names another version.
    """
    if if_match is None:
        raise Problem(
            428,
            type="urn:slipway:problem:precondition-required",
            detail="Send If-Match with the ETag that the change is based on.",
        )
    if not strong_match(if_match, version):
        raise Problem(
            412,
            type="urn:slipway:problem:precondition-failed",
            detail="It has changed since; read it again and repeat the change.",
            headers={"ETag": etag(version)},
        )


def not_modified(if_none_match: str | None, version: int | str) -> bool:
    """Tell whether a read may be answered 304: the caller has `version` already."""
    return if_none_match is not None and weak_match(if_none_match, version)
