"""The plumbing: every message has one handler, and no more code than it takes."""

import inspect

import pytest

from trainers import commands, messages, queries
from trainers.messages import Command, Dispatcher, Message, Query
from trainers.service import read_side, write_side


def kinds(module, base):
    """The messages that a module defines."""
    return {
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and kind.__module__ == module.__name__
    }


def test_the_plumbing_is_under_a_hundred_lines():
    assert len(inspect.getsource(messages).splitlines()) < 100


async def test_every_message_has_a_handler(gym):
    """A command or query that somebody adds and forgets to register is found here."""
    assert kinds(commands, Command) == set(write_side(gym.runtime).commands._handlers)
    assert kinds(queries, Query) == set(read_side(gym.runtime).queries._handlers)


class Ask(Query[int]):
    """A query for a number."""


class Answer:
    """Knows the number."""

    async def handle(self, session, query, /):
        """Tell it."""
        return 42


async def test_a_message_goes_to_the_handler_of_its_type():
    dispatcher = Dispatcher()
    dispatcher.register(Ask, Answer())
    assert await dispatcher.dispatch(None, Ask()) == 42


async def test_a_message_that_nobody_handles_is_a_mistake_of_the_code():
    with pytest.raises(LookupError, match="nobody handles Ask"):
        await Dispatcher().dispatch(None, Ask())


def test_a_type_has_one_handler():
    dispatcher = Dispatcher()
    dispatcher.register(Ask, Answer())
    with pytest.raises(ValueError, match="Ask has a handler already"):
        dispatcher.register(Ask, Answer())
    with pytest.raises(ValueError, match="int is no command and no query"):
        dispatcher.register(int, Answer())
    assert issubclass(Ask, Message)
