"""The httpx2 API over aiohttp's connections, which are several times faster than httpcore's.

Keeps nothing between calls but connections: no cookies, no proxies from the environment, no
redirects, no retries of its own. The package httpx-aiohttp is no substitute: it keeps cookies,
reports a lost connection as a connect timeout and does not bound the size of an answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx2
from yarl import URL

from chassis.http.errors import ClosedBeforeResponseError, ResponseTooLargeError

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
KEEP_ALIVE_SECONDS = 30.0  # shorter than the 75 s of the chassis server, so that it never races
DNS_CACHE_SECONDS = 5
_CHUNK = 64 * 1024


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport. Opens its session on first use, in the loop of that use.

    Honours the `timeout` extension of a request (connect, read, pool; in seconds).

    Args:
        max_connections: per host and port; a further call waits for a free one.
        keep_alive: seconds after which an idle connection is closed.
        dns_ttl: seconds for which a resolved name is used again.
        max_response_bytes: of a body, as received.
    """

    def __init__(
        self,
        *,
        max_connections: int = 100,
        keep_alive: float = KEEP_ALIVE_SECONDS,
        dns_ttl: int = DNS_CACHE_SECONDS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        self._max_connections = max_connections
        self._keep_alive = keep_alive
        self._dns_ttl = dns_ttl
        self._max_response_bytes = max_response_bytes
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request`; the caller reads and closes the response.

        Raises:
            httpx2.TransportError: a subclass that says what failed.
        """
        session = self._session or self._open()
        timeout = request.extensions.get("timeout", {})
        headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.lower() != b"transfer-encoding"  # aiohttp sets it with the framing
        ]
        try:
            data: bytes | httpx2.SyncByteStream | httpx2.AsyncByteStream | None = (
                request.content or None
            )
        except httpx2.RequestNotRead:
            data = request.stream
        with _mapped_errors():
            response = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
            )
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity" and request.headers.get("Accept-Encoding") == "identity":
            # Unasked compression would let a small answer grow past every bound.
            response.close()
            raise httpx2.RemoteProtocolError(f"unasked content encoding {encoding!r}")
        return httpx2.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Stream(response, self._max_response_bytes),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=self._max_connections,
            keepalive_timeout=self._keep_alive,
            ttl_dns_cache=self._dns_ttl,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        # aiohttp would repeat some calls unseen; retries belong to Peer, which counts them.
        session._retry_connection = False  # noqa: SLF001  (there is no public switch)
        self._session = session
        return session


class _Stream(httpx2.AsyncByteStream):
    """The body of a response; releases the connection at its end, drops it when left early."""

    def __init__(self, response: aiohttp.ClientResponse, limit: int) -> None:
        self._response = response
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        declared = self._response.content_length
        if declared is not None and declared > self._limit:
            raise ResponseTooLargeError(f"a body of {declared} bytes; the limit is {self._limit}")
        with _mapped_errors():
            async for chunk in self._response.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > self._limit:
                    raise ResponseTooLargeError(f"a body of more than {self._limit} bytes")
                yield chunk

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Raise aiohttp's errors as those of httpx2."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as exc:
        raise httpx2.ConnectTimeout("no connection in time") from exc
    except aiohttp.ServerTimeoutError as exc:
        raise httpx2.ReadTimeout("no data in time") from exc
    except aiohttp.ClientConnectorError as exc:
        raise httpx2.ConnectError(str(exc)) from exc
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as exc:
        raise ClosedBeforeResponseError(f"connection lost: {exc}") from exc
    except aiohttp.ClientConnectionError as exc:
        raise httpx2.ConnectError(str(exc)) from exc
    except aiohttp.ClientPayloadError as exc:
        raise httpx2.RemoteProtocolError("the response body is incomplete") from exc
    except aiohttp.ClientResponseError as exc:
        raise httpx2.RemoteProtocolError(f"not an HTTP response: {exc.message}") from exc
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as exc:
        raise httpx2.UnsupportedProtocol(f"not an HTTP URL: {exc}") from exc
    except ValueError as exc:
        raise httpx2.LocalProtocolError(str(exc)) from exc
