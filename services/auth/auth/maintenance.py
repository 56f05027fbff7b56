"""Loops beside the requests: signing keys are read again, expired rows go."""

from __future__ import annotations

from auth.state import Auth, auth_of
from chassis.runtime import Runtime

PURGE_SECONDS = 600.0


async def reload_keys(runtime: Runtime) -> None:
    """Follow rotations that another process made."""
    await auth_of(runtime).keys.run()


async def purge(runtime: Runtime) -> None:
    """Delete what is over, every ten minutes. Replicas may do it at once; it is idempotent."""
    auth = auth_of(runtime)
    while True:
        await purge_once(auth)
        await auth.clock.sleep(PURGE_SECONDS)


async def purge_once(auth: Auth) -> None:
    """Delete expired sessions, forgotten login failures and retired keys."""
    now = auth.clock.now()
    async with auth.database.session() as session:
        await auth.sessions.purge(session, now)
    async with auth.database.session() as session:
        await auth.lockout.purge(session, now)
    await auth.keys.purge()
