"""One trace from the cause of an event to its delivery, and what is not recorded costs nothing."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

CAUSE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("flags", ["01", "00"])
async def test_an_event_goes_on_in_the_trace_of_its_cause(start, log_url, order_event, flags):
    """A span for its publishing, one for its delivery to all clients; none when not sampled."""
    exporter = InMemorySpanExporter()
    async with (
        start(valkey_url=log_url, exporter=exporter, trace_sample_ratio=0.0) as replica,
        replica.open() as one,
        replica.open() as two,
    ):
        await one.subscribe("orders")
        await two.subscribe("orders")
        parent = f"00-{CAUSE}-b7ad6b7169203331-{flags}"
        headers = {**replica._relay, "traceparent": parent}
        headers["Content-Type"] = "application/cloudevents+json"
        answer = await replica.http.post("/events", json=order_event(), headers=headers)
        assert answer.status_code == 204
        [told], [also] = await one.events(1), await two.events(1)
        assert told == also
        replica.app.state.runtime.tracer_provider.force_flush()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    if flags == "00":
        assert not spans
        assert "traceparent" not in told
        return
    publish, deliver = spans["publish orders"], spans["deliver orders"]
    assert format(publish.context.trace_id, "032x") == CAUSE
    assert deliver.context.trace_id == publish.context.trace_id
    assert deliver.parent.span_id == publish.context.span_id
    assert [link.context.span_id for link in deliver.links] == [publish.context.span_id]
    assert deliver.attributes["stream.clients"] == 2
    assert told["traceparent"] == f"00-{CAUSE}-{publish.context.span_id:016x}-01"
