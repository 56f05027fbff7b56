"""Events between services: an outbox that loses nothing, an inbox that repeats nothing.

CloudEvents 1.0 over HTTP, at least once; consumers are made idempotent by their inbox.
"""
