"""The fixtures that every service's tests stand on."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta

import httpx2
import psycopg
import pytest

from chassis.settings import DatabaseSettings, ServiceSettings


def test_databases_are_fresh_and_empty(database_dialect, database_url):
    """A table that a test makes is not there for the next one: the database is its own."""
    if database_dialect == "sqlite":
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as db:
            db.execute("CREATE TABLE leftovers (id INTEGER)")
        return
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE leftovers (id INTEGER)")
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'leftovers'")
        assert found.fetchone() == (1,)


test_databases_are_fresh_and_empty_again = test_databases_are_fresh_and_empty
