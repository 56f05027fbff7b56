"""Calls to other services, with everything that makes them safe."""

from __future__ import annotations

from chassis.http.deadline import Deadline, current_deadline, remaining
from chassis.http.errors import (
    DeadlineExceeded,
    PeerError,
    PeerFault,
    PeerUnavailable,
    install_peer_error_handlers,
)
from chassis.http.peer import Peer

__all__ = [
    "Deadline",
    "DeadlineExceeded",
    "Peer",
    "PeerError",
    "PeerFault",
    "PeerUnavailable",
    "current_deadline",
    "install_peer_error_handlers",
    "remaining",
]
