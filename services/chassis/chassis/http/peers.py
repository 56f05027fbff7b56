"""The peers of one process: one connection pool, one `Peer` per name."""

from __future__ import annotations

from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from chassis.clock import Clock
from chassis.http.metrics import HttpClientMetrics
from chassis.http.peer import Peer
from chassis.security.tokens import ServiceTokens
from chassis.settings import ServiceSettings


class Peers:
    """Makes and keeps the clients of other services.

    Attributes:
        transport: the connections, for plain calls that are no peer's.
        tokens: this service's own access tokens.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        # Slow to import; a function on Lambda may serve for long without a call.
        from chassis.http.transport import AiohttpTransport  # noqa: PLC0415

        self._settings = settings
        self._clock = clock
        self._metrics = HttpClientMetrics(registry)
        self._tracer_provider = tracer_provider
        self._peers: dict[str, Peer] = {}
        self.transport = AiohttpTransport(max_connections=settings.peer_max_connections)
        self.tokens = ServiceTokens(
            settings, clock=clock, auth=lambda: self.get("auth", settings.auth_url)
        )

    def get(self, name: str, base_url: str | None = None) -> Peer:
        """Return the client of `name`; its address defaults to the setting `<name>_url`.

        Raises:
            RuntimeError: no address is known, or another one was given before.
        """
        peer = self._peers.get(name)
        if peer is None:
            setting = f"{name.replace('-', '_')}_url"
            url = base_url or getattr(self._settings, setting, None)
            if not url:
                raise RuntimeError(f"no address of peer {name}: the settings have no {setting}")
            peer = self._peers[name] = Peer(
                name,
                url,
                settings=self._settings,
                clock=self._clock,
                transport=self.transport,
                metrics=self._metrics,
                tracer_provider=self._tracer_provider,
                tokens=self.tokens,
            )
        elif base_url is not None and base_url.rstrip("/") != peer.base_url:
            raise RuntimeError(f"peer {name} is at {peer.base_url} already, not at {base_url}")
        return peer

    async def close(self) -> None:
        """Stop the refresh of tokens and close all connections."""
        await self.tokens.close()
        await self.transport.aclose()
