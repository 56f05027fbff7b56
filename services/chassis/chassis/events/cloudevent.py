"""CloudEvents 1.0, structured JSON mode (`application/cloudevents+json`)."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

CONTENT_TYPE = "application/cloudevents+json"

Rfc3339 = Annotated[
    AwareDatetime,
    PlainSerializer(
        lambda value: value.isoformat().replace("+00:00", "Z"), return_type=str, when_used="json"
    ),
]


class CloudEvent(BaseModel):
    """One event. Unknown attributes are extensions and are kept, as the standard asks."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "specversion": "1.0",
                    "id": "0197a4f0-3f7e-7c3a-9a53-2f1f6c0a7d11",
                    "source": "/services/orders",
                    "type": "order.confirmed",
                    "subject": "0197a4f0-1111-7c3a-9a53-2f1f6c0a7d11",
                    "time": "2026-05-04T12:00:00Z",
                    "datacontenttype": "application/json",
                    "data": {"order_id": "0197a4f0-1111-7c3a-9a53-2f1f6c0a7d11"},
                }
            ]
        },
    )

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, max_length=200)
    source: str = Field(min_length=1, max_length=200)
    type: str = Field(min_length=1, max_length=200)
    subject: str | None = Field(default=None, min_length=1, max_length=500)
    time: Rfc3339 | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    traceparent: str | None = Field(default=None, max_length=100)
    tracestate: str | None = Field(default=None, max_length=600)
    data: Any = None

    def to_json(self) -> str:
        """Return the structured form, without the attributes that are not set."""
        return self.model_dump_json(exclude_none=True)


def source_of(service: str) -> str:
    """Return the `source` attribute of the events of a service."""
    return f"/services/{service}"
