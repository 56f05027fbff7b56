"""The runtime of a service: what one process holds, from settings to database and peers.

`create_app` builds it, the lifespan opens and closes its resources; handlers get it by
`RuntimeDep`, background loops by their argument.
"""

from typing import Annotated, Any, cast

from fastapi import Depends
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from chassis.clock import Clock
from chassis.lifecycle import Lifecycle
from chassis.logs import get_logger
from chassis.settings import DatabaseSettings, ServiceSettings


class Runtime:
    """Everything that belongs to one running service, one per application."""

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.registry = registry
        self.tracer_provider = tracer_provider
        self.log = get_logger(settings.service_name)
        self.lifecycle = Lifecycle()
        self.extras: dict[str, Any] = {}
        self._database: Any = None
        self._verifier: Any = None
        self._tokens: Any = None
        self._peers: dict[str, Any] = {}

    @property
    def database(self) -> Any:
        """Return the database.

        Raises:
            RuntimeError: the settings have none.
        """
        if self._database is None:
            if not isinstance(self.settings, DatabaseSettings):
                raise RuntimeError(
                    f"{self.settings.service_name} has no database: "
                    "its settings must derive from DatabaseSettings"
                )
            from chassis.database import Database

            self._database = Database(self.settings, self.registry)
        return self._database

    @property
    def verifier(self) -> Any:
        """Return the verifier of bearer tokens."""
        if self._verifier is None:
            from chassis.security.verifier import TokenVerifier

            self._verifier = TokenVerifier(self)
        return self._verifier

    @verifier.setter
    def verifier(self, verifier: Any) -> None:
        """Replace the verifier, in `setup`: auth verifies with keys of its own."""
        self._verifier = verifier

    @property
    def tokens(self) -> Any:
        """Return the source of this service's own tokens."""
        if self._tokens is None:
            from chassis.security.tokens import ServiceTokens

            self._tokens = ServiceTokens(self)
        return self._tokens

    def peer(self, name: str, base_url: str | None = None) -> Any:
        """Return the client of the service `name`; its address defaults to `<name>_url`."""
        peer = self._peers.get(name)
        if peer is None:
            from chassis.http.peer import Peer

            url = base_url or getattr(self.settings, f"{name.replace('-', '_')}_url", None)
            if not url:
                raise RuntimeError(f"no address of peer {name}: the settings lack {name}_url")
            peer = self._peers[name] = Peer(self, name, url)
        return peer

    async def close(self) -> None:
        """Close pools and clients."""
        for peer in self._peers.values():
            await peer.close()
        self._peers.clear()
        for resource in (self._tokens, self._verifier, self._database):
            close = getattr(resource, "close", None)
            if close is not None:
                await close()
        self._database = self._verifier = self._tokens = None


def get_runtime(conn: HTTPConnection) -> Runtime:
    """Return the runtime of the application that serves `conn`."""
    return cast(Runtime, conn.app.state.runtime)


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
