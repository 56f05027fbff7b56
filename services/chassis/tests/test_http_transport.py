"""The aiohttp transport behind the httpx2 API, against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import gzip

import httpx2
import pytest

from chassis.http.transport import (
    AiohttpTransport,
    ClosedBeforeResponseError,
    ResponseTooLargeError,
)


@pytest.fixture
async def transport():
    transport = AiohttpTransport(max_connections=4, max_response_bytes=10_000)
    yield transport
    await transport.aclose()


@pytest.fixture
async def client(transport):
    """A plain httpx2 client: the transport is usable without the rest of the chassis."""
    timeout = httpx2.Timeout(30)
    async with httpx2.AsyncClient(transport=transport, timeout=timeout) as client:
        yield client


async def test_sends_and_receives_as_httpx_does(client, faulty_peer):
    """Method, query, headers and body arrive; status, headers and body come back."""
    faulty_peer.respond(201, json={"ok": True}, headers={"X-Answer": "yes"})
    url = f"{faulty_peer.url}/a%2Fb/c?x=1"
    response = await client.post(url, json={"n": 1}, headers={"X-Ask": "please"})
    assert (response.status_code, response.json()) == (201, {"ok": True})
    assert response.headers["x-answer"] == "yes"
    request = faulty_peer.requests[0]
    assert (request.method, request.target, request.json()) == ("POST", "/a%2Fb/c?x=1", {"n": 1})
    assert request.headers["x-ask"] == "please"
    assert request.headers["content-type"] == "application/json"
    assert [name for name, _ in request.all_headers].count("content-length") == 1


async def test_streams_a_request_body(client, faulty_peer):
    """An async iterator is sent in chunks."""

    async def body():
        yield b"first "
        yield b"second"

    await client.post(faulty_peer.url, content=body())
    assert faulty_peer.requests[0].body == b"first second"


async def test_one_connection_serves_many_calls(client, faulty_peer):
    """Connections are kept alive."""
    for _ in range(5):
        await client.get(faulty_peer.url)
    assert faulty_peer.connections == 1


async def test_the_pool_is_bounded(client, faulty_peer):
    """Twelve calls at once share four connections."""
    faulty_peer.slow(0.02)
    responses = await asyncio.gather(*(client.get(faulty_peer.url) for _ in range(12)))
    assert [response.status_code for response in responses] == [200] * 12
    assert faulty_peer.connections == 4


async def test_no_cookies_are_kept(transport, faulty_peer):
    """A cookie that a peer sets is not sent with the next call."""
    faulty_peer.respond(200, json={}, headers={"Set-Cookie": "session=stolen; Path=/"})
    for _ in range(2):
        response = await transport.handle_async_request(httpx2.Request("GET", faulty_peer.url))
        await response.aread()
        await response.aclose()
    assert all("cookie" not in request.headers for request in faulty_peer.requests)


async def test_redirects_are_returned_not_followed(client, faulty_peer):
    """A peer cannot send a call elsewhere."""
    faulty_peer.respond(302, headers={"Location": "http://127.0.0.1:1/"})
    assert (await client.get(faulty_peer.url)).status_code == 302


async def test_proxies_of_the_environment_are_ignored(client, faulty_peer, monkeypatch):
    """HTTP_PROXY is for people's browsers."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await client.get(faulty_peer.url)).status_code == 200


async def test_a_refused_connection(client, faulty_peer):
    """No listener: ConnectError."""
    faulty_peer.refuse()
    with pytest.raises(httpx2.ConnectError):
        await client.get(faulty_peer.url)


async def test_a_name_that_does_not_resolve(client):
    """DNS failure: ConnectError."""
    with pytest.raises(httpx2.ConnectError):
        await client.get("http://no-such-host.invalid/")


@pytest.mark.parametrize("fault", ["reset", "disconnect"])
async def test_a_connection_lost_before_the_answer(client, faulty_peer, fault):
    """Reset or closed without a byte: told apart, because such a call may be repeated."""
    getattr(faulty_peer, fault)()
    with pytest.raises(ClosedBeforeResponseError):
        await client.get(faulty_peer.url)
    assert len(faulty_peer.requests) == 1, "the transport does not retry by itself"


async def test_a_peer_that_never_answers(client, faulty_peer):
    """The read timeout applies."""
    faulty_peer.hang()
    with pytest.raises(httpx2.ReadTimeout):
        await client.get(faulty_peer.url, timeout=httpx2.Timeout(30, read=0.1))


async def test_a_pool_without_a_free_connection(client, faulty_peer):
    """Waiting for a connection is bounded too."""
    faulty_peer.hang()
    hanging = [
        asyncio.create_task(client.get(faulty_peer.url, timeout=httpx2.Timeout(30)))
        for _ in range(4)
    ]
    await faulty_peer.wait_for_requests(4)
    with pytest.raises(httpx2.TimeoutException):
        await client.get(faulty_peer.url, timeout=httpx2.Timeout(30, pool=0.05))
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)


async def test_bytes_that_are_not_http(client, faulty_peer):
    """Garbage: RemoteProtocolError."""
    faulty_peer.garbage()
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get(faulty_peer.url)


async def test_a_body_that_ends_early(client, faulty_peer):
    """A shorter body than promised is an error, never a short result."""
    faulty_peer.truncated()
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get(faulty_peer.url)


async def test_a_body_above_the_limit(client, faulty_peer):
    """The size of an answer is bounded, and its connection is not used again."""
    faulty_peer.respond(200, body=b"x" * 5_000_000, times=1)
    with pytest.raises(ResponseTooLargeError):
        await client.get(faulty_peer.url)
    await client.get(faulty_peer.url)
    assert faulty_peer.connections == 2


async def test_an_endless_body_without_a_length(client, faulty_peer):
    """The limit holds for chunked bodies, too."""

    async def endless(connection, request):
        connection.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await connection.writer.drain()

    faulty_peer.use(endless)
    with pytest.raises(ResponseTooLargeError):
        await client.get(faulty_peer.url)


async def test_unasked_compression_is_refused(client, faulty_peer):
    """A compressed answer to a call that asked for identity could be a bomb."""
    faulty_peer.respond(200, body=gzip.compress(b"x"), headers={"Content-Encoding": "gzip"})
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get(faulty_peer.url, headers={"Accept-Encoding": "identity"})


async def test_leaving_a_stream_early_drops_the_connection(client, faulty_peer):
    """An answer that is not read to its end does not poison the next call."""
    faulty_peer.respond(200, body=b"x" * 9_000)
    async with client.stream("GET", faulty_peer.url) as response:
        assert response.status_code == 200
    assert (await client.get(faulty_peer.url)).content == b"x" * 9_000


async def test_a_cancelled_call_drops_its_connection(client, faulty_peer):
    """The answer to a cancelled call is never taken for the answer to another one."""
    faulty_peer.slow(0.05, json={"for": "first"}, times=1)
    faulty_peer.respond(200, json={"for": "second"})
    first = asyncio.create_task(client.get(faulty_peer.url))
    await faulty_peer.wait_for_requests(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await client.get(faulty_peer.url)).json() == {"for": "second"}
    assert faulty_peer.connections == 2


async def test_a_line_break_in_a_header_is_refused(client, faulty_peer):
    """A value from outside cannot add headers of its own."""
    with pytest.raises(httpx2.LocalProtocolError):
        await client.get(faulty_peer.url, headers={"X-Name": "a\r\nX-Admin: yes"})
    assert faulty_peer.requests == []


async def test_an_address_that_is_not_http(transport):
    """Other schemes are refused."""
    with pytest.raises(httpx2.UnsupportedProtocol):
        await transport.handle_async_request(httpx2.Request("GET", "ftp://127.0.0.1/"))


async def test_it_can_be_used_again_after_it_was_closed(transport, faulty_peer):
    """Closing ends the connections; a later call opens new ones."""
    for _ in range(2):
        response = await transport.handle_async_request(httpx2.Request("GET", faulty_peer.url))
        await response.aread()
        await response.aclose()
        await transport.aclose()
    assert faulty_peer.connections == 2
