"""Who may read: whoever has a valid access token, or credentials that auth accepts."""

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security.http import HTTPBase
from starlette.requests import HTTPConnection

from chassis import Problem, RuntimeDep
from chassis.security import authenticate
from chassis.security.dependencies import unauthorized

_JWT_DOTS = 2
_OK = 200
# What auth needs to judge: the credentials, and whose address a failure counts against.
_FORWARDED = ("authorization", "x-forwarded-for")
_BASIC = HTTPBase(
    scheme="basic", scheme_name="Basic", description="E-mail and password.", auto_error=False
)
_BEARER = HTTPBase(
    scheme="bearer", scheme_name="Bearer", description="A token or an API key.", auto_error=False
)


async def _authenticated(
    connection: HTTPConnection,
    runtime: RuntimeDep,
    _basic: Annotated[object, Security(_BASIC)],
    _bearer: Annotated[object, Security(_BEARER)],
) -> None:
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if not scheme:
        raise unauthorized()
    if scheme.lower() == "bearer" and credentials.count(".") == _JWT_DOTS:
        # A JWT is verified here, with auth's public keys: no call, and no need that auth is up.
        await authenticate(connection)
        return
    headers = {name: value for name, value in connection.headers.items() if name in _FORWARDED}
    answer = await runtime.peer("auth").post("/login/", headers=headers, idempotent=True)
    if answer.status_code != _OK:
        told = ("WWW-Authenticate", "Retry-After")
        raise Problem(
            401,
            detail="auth refused these credentials.",
            headers={name: answer.headers[name] for name in told if name in answer.headers},
        )


Authenticated = Depends(_authenticated)
