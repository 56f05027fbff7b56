"""What the cluster tools tell when they cannot go on."""

from __future__ import annotations


class ToolError(Exception):
    """One line for the person at the terminal; `code` is the exit code (2: bad input)."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(" ".join(text.split()))
        self.code = code
