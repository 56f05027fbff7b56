"""Who calls, and what that caller may do."""

from __future__ import annotations

from chassis.security.dependencies import Caller, MaybeCaller, authenticate, requires
from chassis.security.principal import Principal

__all__ = ["Caller", "MaybeCaller", "Principal", "authenticate", "requires"]
