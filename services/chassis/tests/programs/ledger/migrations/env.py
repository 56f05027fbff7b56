"""Alembic's entry."""

from sqlalchemy import Column, Integer, MetaData, Table

from chassis.migrations import env_run

metadata = MetaData()
Table("t", metadata, Column("id", Integer, primary_key=True))
env_run(metadata)
