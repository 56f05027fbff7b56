"""The runtime of a service: what one process holds, from settings to database and peers.

`create_app` builds it, the lifespan opens and closes its resources; handlers get it by
`RuntimeDep`, background loops by their argument.
"""

from typing import Annotated, Any, cast

from fastapi import Depends
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from chassis.clock import Clock
from chassis.database import Database
from chassis.http.peer import Peer
from chassis.http.peers import Peers
from chassis.lifecycle import Lifecycle
from chassis.logs import get_logger
from chassis.security.tokens import ServiceTokens
from chassis.security.verifier import TokenVerifier
from chassis.settings import DatabaseSettings, ServiceSettings
from chassis.telemetry import ServiceTracerProvider


class Runtime:
    """Everything that belongs to one running service, one per application."""

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        tracer_provider: ServiceTracerProvider | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.registry = registry
        self.tracer_provider = tracer_provider
        self.log = get_logger(settings.service_name)
        self.lifecycle = Lifecycle()
        self.loops: tuple[str, ...] = ()
        """The background loops of the service, by name, whether or not they run here."""
        self.extras: dict[str, Any] = {}
        self._database: Database | None = None
        self._verifier: TokenVerifier | None = None
        self._peers: Peers | None = None

    @property
    def database(self) -> Database:
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
            self._database = Database(
                self.settings, self.registry, tracer_provider=self.tracer_provider
            )
        return self._database

    @property
    def peers(self) -> Peers:
        """Return the clients of other services."""
        if self._peers is None:
            self._peers = Peers(
                self.settings,
                clock=self.clock,
                registry=self.registry,
                tracer_provider=self.tracer_provider,
            )
        return self._peers

    @property
    def verifier(self) -> TokenVerifier:
        """Return the verifier of bearer tokens."""
        if self._verifier is None:
            self._verifier = TokenVerifier(
                self.settings, clock=self.clock, transport=self.peers.transport
            )
        return self._verifier

    @verifier.setter
    def verifier(self, verifier: TokenVerifier) -> None:
        """Replace the verifier, in `setup`: auth verifies with keys of its own."""
        self._verifier = verifier

    @property
    def tokens(self) -> ServiceTokens:
        """Return the source of this service's own tokens."""
        return self.peers.tokens

    def peer(self, name: str, base_url: str | None = None) -> Peer:
        """Return the client of the service `name`; its address defaults to `<name>_url`."""
        return self.peers.get(name, base_url)

    async def close(self) -> None:
        """Close pools and clients. Their counters live on; the next use opens anew."""
        if self._verifier is not None:
            await self._verifier.close()
        if self._peers is not None:
            await self._peers.close()
        if self._database is not None:
            await self._database.close()


def get_runtime(conn: HTTPConnection) -> Runtime:
    """Return the runtime of the application that serves `conn`."""
    return cast("Runtime", conn.app.state.runtime)


async def _runtime(conn: HTTPConnection) -> Runtime:
    # FastAPI runs a plain function in a thread: a hop for each request.
    return get_runtime(conn)


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
