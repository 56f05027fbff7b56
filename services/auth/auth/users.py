"""Accounts: making them and finding them."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from auth import scopes as scope_text
from auth.models import User
from auth.settings import ADMIN_SCOPES, LOGIN_SCOPES, USER_SCOPES
from chassis.clock import Clock
from chassis.database import Database
from chassis.ids import new_id


class AccountExistsError(Exception):
    """The e-mail address has an account."""


async def create(
    database: Database, clock: Clock, *, email: str, password_hash: str, admin: bool = False
) -> User:
    """Store a new account; `email` is normalised. The unique index decides between two at once.

    Raises:
        AccountExistsError: the address is taken.
    """
    scopes = (*USER_SCOPES, *ADMIN_SCOPES) if admin else USER_SCOPES
    user = User(
        id=new_id(),
        email=email,
        password_hash=password_hash,
        scopes=scope_text.join(scopes),
        created_at=clock.now(),
    )
    try:
        async with database.session() as session:
            session.add(user)
    except IntegrityError as exc:
        raise AccountExistsError from exc
    return user


async def by_email(session: AsyncSession, email: str) -> User | None:
    """Return the account of a normalised address."""
    found: User | None = await session.scalar(select(User).where(User.email == email))
    return found


async def by_id(session: AsyncSession, user_id: str) -> User | None:
    """Return the account with this id."""
    return await session.get(User, user_id)


def login_scopes(user: User) -> tuple[str, ...]:
    """Return what a login of this account may be granted."""
    return (*scope_text.parse(user.scopes), *LOGIN_SCOPES)


async def make_admin(database: Database, user: User) -> bool:
    """Give an account the scopes of an administrator; tell whether it lacked any."""
    held = scope_text.parse(user.scopes)
    wanted = scope_text.join((*held, *USER_SCOPES, *ADMIN_SCOPES))
    if wanted == user.scopes:
        return False
    async with database.session() as session:
        await session.execute(update(User).where(User.id == user.id).values(scopes=wanted))
    return True
