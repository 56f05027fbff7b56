"""Spans as the view keeps them, read from OTLP/HTTP in protobuf."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

MAX_BYTES = 8 * 1024 * 1024
"""The largest export that is read, unpacked."""
MAX_TEXT = 500
MAX_ATTRIBUTES = 64
MAX_LINKS = 16
_STATEMENT = 60


class BadExportError(ValueError):
    """A body that is no export of traces, or too large."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are hexadecimal, times nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    kind: str
    start: int
    end: int
    error: bool = False
    message: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    """(trace id, span id) of other spans it has to do with."""

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return max(self.end - self.start, 0) / 1e6

    @property
    def label(self) -> str:
        """What it did, for a person: the statement of a query, the peer of a call."""
        if statement := self.attributes.get("db.statement"):
            words = " ".join(statement.split())
            return words if len(words) <= _STATEMENT else f"{words[: _STATEMENT - 1]}…"
        if peer := self.attributes.get("peer.service"):
            return f"{self.name} to {peer}"
        return self.name


def counted(spans: Sized) -> str:
    """How many, for a person: `1 span`, `2 spans`."""
    return f"{len(spans)} span{'' if len(spans) == 1 else 's'}"


def decode(body: bytes, encoding: str = "") -> list[Span]:
    """Read an export request.

    Raises:
        BadExportError: it is none, or too large.
    """
    try:
        request = ExportTraceServiceRequest.FromString(_unpacked(body, encoding))
    except (DecodeError, OSError, EOFError, zlib.error) as error:
        raise BadExportError(f"no OTLP export: {' '.join(str(error).split())}") from error
    return list(_spans(request))


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        raise BadExportError(f"content encoding {encoding!r} is not known")
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
        found = packed.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise BadExportError(f"more than {MAX_BYTES} bytes")
    return found


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_resource in request.resource_spans:
        service = "?"
        for pair in of_resource.resource.attributes:
            if pair.key == "service.name":
                service = _text(pair.value)
        for of_scope in of_resource.scope_spans:
            for message in of_scope.spans:
                yield _span(message, service)


def _span(message: Message, service: str) -> Span:
    return Span(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex() or None,
        service=service,
        name=message.name[:MAX_TEXT],
        kind=Message.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_").lower(),
        start=message.start_time_unix_nano,
        end=message.end_time_unix_nano,
        error=message.status.code == Status.STATUS_CODE_ERROR,
        message=message.status.message[:MAX_TEXT],
        attributes=_attributes(message.attributes),
        links=tuple(
            (link.trace_id.hex(), link.span_id.hex()) for link in message.links[:MAX_LINKS]
        ),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair, _ in zip(pairs, range(MAX_ATTRIBUTES))}  # noqa: B905


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return ", ".join(_text(each) for each in value.array_value.values)[:MAX_TEXT]
    if kind is None:
        return ""
    return str(getattr(value, kind)).strip()[:MAX_TEXT]
