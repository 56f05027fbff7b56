"""The plumbing of CQRS: messages that know their answer, handlers by type, and a dispatcher.

A command asks for a change, a query for a look; both are values. Who sends one knows what comes
back (`Command[Booked]` is answered by a `Booked`) and nothing of who handles it.
"""

from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

R = TypeVar("R")
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Message(Generic[R]):
    """What is answered by an `R`."""

    __slots__ = ()


class Command(Message[R]):
    """A wish to change something; its handler may refuse it."""

    __slots__ = ()


class Query(Message[R]):
    """A question; its handler changes nothing."""

    __slots__ = ()


class CommandHandler(Protocol[C_contra, R_co]):
    """Carries out commands of one type in the caller's transaction."""

    async def handle(self, session: AsyncSession, command: C_contra, /) -> R_co:
        """Change the write model and append the events, or raise a `Refusal`."""


class QueryHandler(Protocol[C_contra, R_co]):
    """Answers queries of one type from the read model."""

    async def handle(self, session: AsyncSession, query: C_contra, /) -> R_co:
        """Look, or raise a `Refusal`."""


class Dispatcher:
    """Hands each message to the one handler of its type."""

    def __init__(self) -> None:
        self._handlers: dict[type[Message[Any]], Any] = {}

    def register(
        self,
        kind: type[C_contra],
        handler: CommandHandler[C_contra, R] | QueryHandler[C_contra, R],
    ) -> None:
        """Let `handler` take the messages of type `kind`.

        Raises:
            ValueError: `kind` has a handler, or is no message.
        """
        if not issubclass(kind, Message):
            raise ValueError(f"{kind.__name__} is no command and no query")  # noqa: TRY004
        if kind in self._handlers:
            raise ValueError(f"{kind.__name__} has a handler already")
        self._handlers[kind] = handler

    async def dispatch(self, session: AsyncSession, message: Message[R]) -> R:
        """Hand `message` over; what its handler returns or raises is the answer.

        Raises:
            LookupError: nobody handles its type.
        """
        handler = self._handlers.get(type(message))
        if handler is None:
            raise LookupError(f"nobody handles {type(message).__name__}")
        answer: R = await handler.handle(session, message)
        return answer
