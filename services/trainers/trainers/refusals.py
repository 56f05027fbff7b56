"""Why a command or a query is not answered as asked; the API says it as a problem."""


class Refusal(Exception):  # noqa: N818  (an answer, not a fault)
    """What was asked cannot be: the text says why, to a person."""


class NotFound(Refusal):
    """There is no such thing, or it is none of the caller's business."""


class Stale(Refusal):
    """The command was based on another revision than the present one, `revision`."""

    def __init__(self, revision: int) -> None:
        super().__init__("It has changed since; read it again and repeat the change.")
        self.revision = revision


class Conflict(Refusal):
    """The state of things forbids it. `code` names the rule, in kebab-case."""

    def __init__(self, code: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.title = title
