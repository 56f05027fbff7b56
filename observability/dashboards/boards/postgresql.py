"""PostgreSQL as it sees itself: by postgres_exporter, so where one runs (charts/datastores)."""

from __future__ import annotations

from observability.dashboards.library import (
    BYTES,
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    Board,
    Query,
    graph,
    number,
)

NAMESPACES = "label_values(pg_up, namespace)"
OF = 'namespace=~"$namespace"'
# Templates, and the database that only administrators open.
DATABASES = f'{OF},datname!~"template.*|postgres|"'


def make() -> Board:
    """Return the dashboard."""
    board = Board(
        "slipway-postgresql",
        "Slipway / PostgreSQL",
        "Connections, transactions, locks and sizes, by postgres_exporter.",
        {"namespace": NAMESPACES},
    )
    board.row("Now", *_now())
    board.row("Load", *_load())
    board.row("Waits and room", *_room())
    return board


def _rate(metric: str, by: str = "datname") -> str:
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate(pg_stat_database_{metric}{{{DATABASES}}}[$__rate_interval]))"


def _hits(by: str) -> str:
    found, read = _rate("blks_hit", by), _rate("blks_read", by)
    return f"{found} / ({found} + {read} > 0)"


def _now() -> list[object]:
    used = f"sum(pg_stat_database_numbackends{{{OF}}})"
    most = f"max(pg_settings_max_connections{{{OF}}})"
    oldest = f"max(pg_long_running_transactions_oldest_timestamp_seconds{{{OF}}})"
    deadlocks = f"sum(increase(pg_stat_database_deadlocks{{{OF}}}[1h]))"
    return [
        number("Answers", "1: the exporter reaches PostgreSQL. 0: docs/runbooks/DatabaseDown.md.",
               COUNT, Query(f"min(pg_up{{{OF}}})"), limits=(1, 0.5)),
        number("Connections used", "Of those that the server allows. High: "
               "docs/runbooks/DatabaseConnectionsHigh.md.", SHARE, Query(f"{used} / {most}"),
               limits=(0.6, 0.8), wide=5),
        number("Oldest transaction", "One that stays open holds its locks and keeps old rows. "
               "Minutes: find it in pg_stat_activity.", SECONDS, Query(f"{oldest} or vector(0)"),
               limits=(60, 600), wide=5),
        number("Deadlocks", "In an hour. Not 0: two code paths lock the same rows in different "
               "order; the server's log names both.", COUNT, Query(deadlocks), limits=(1, 5),
               wide=5),
        number("Found in memory", "Share of the blocks that need no read. Low for long: give "
               "shared_buffers more, or look for scans.", SHARE, Query(_hits("")),
               limits=(0.95, 0.8), wide=5),
    ]  # fmt: skip


def _load() -> list[object]:
    name = "{{datname}}"
    written = " + ".join(_rate(f"tup_{what}") for what in ("inserted", "updated", "deleted"))
    undone = _rate("xact_rollback")
    return [
        graph("Connections by database", "Pools of all replicas together. One that grows without "
              "requests leaks sessions.", COUNT,
              Query(f"max by (datname) (pg_stat_database_numbackends{{{DATABASES}}})", name),
              stacked=True),
        graph("Commits", "Transactions a second that were committed. What jumps without requests "
              "is a loop.", PER_SECOND, Query(_rate("xact_commit"), name)),
        graph("Rolled back", "Share of the transactions. Reads are rolled back by design; a jump "
              "means refused writes or conflicts.", SHARE,
              Query(f"{undone} / ({undone} + {_rate('xact_commit')} > 0)", name)),
        graph("Rows written", "Inserted, updated and deleted in a second. Compare with the "
              "requests of the service.", PER_SECOND, Query(written, name)),
        graph("Rows read", "Returned by scans in a second. Far above the requests: an index is "
              "missing.", PER_SECOND, Query(_rate("tup_returned"), name)),
        graph("Found in memory by database", "Share of the blocks that need no read. One database "
              "that falls reads more than fits.", SHARE, Query(_hits("datname"), name), most=1),
    ]  # fmt: skip


def _room() -> list[object]:
    waiting = f'pg_stat_activity_count{{{DATABASES},wait_event_type="Lock"}}'
    longest = f'pg_stat_activity_max_tx_duration{{{DATABASES},state!="idle"}}'
    return [
        graph("Waiting for a lock", "Sessions that another one holds up. Not 0 for long: see who "
              "waits for whom, docs/runbooks/DatabasePoolExhausted.md.", COUNT,
              Query(f"sum by (datname) ({waiting}) "
                    f"or 0 * sum by (datname) (pg_stat_activity_count{{{DATABASES}}})",
                    "{{datname}}"), limits=(1, 5)),
        graph("Longest transaction by database", "How long the oldest open one runs. Seconds are "
              "too long for a request.", SECONDS,
              Query(f"max by (datname) ({longest})", "{{datname}}"), limits=(5, 60)),
        graph("Size", "On disk. A slope that does not end wants a look at what is deleted, and at "
              "the volume.", BYTES,
              Query(f"max by (datname) (pg_database_size_bytes{{{DATABASES}}})", "{{datname}}"),
              stacked=True),
    ]  # fmt: skip
