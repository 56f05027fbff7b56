"""What tests of services stand on; the plugin `chassis.testing.plugin` offers it as fixtures.

Everything here is real: PostgreSQL, RSA keys, HTTP servers on loopback. Only time can be held.
"""

from __future__ import annotations

from chassis.testing.clock import FakeClock
from chassis.testing.issuer import TestIssuer
from chassis.testing.peer import FaultyPeer, RecordedRequest
from chassis.testing.postgres import PostgresServer
from chassis.testing.servers import app_client, running_app

__all__ = [
    "FakeClock",
    "FaultyPeer",
    "PostgresServer",
    "RecordedRequest",
    "TestIssuer",
    "app_client",
    "running_app",
]
