"""Sign-up and one's own account."""

from typing import Annotated

from fastapi import APIRouter, Response

from auth import passwords, users
from auth.schemas import NewUser, User
from auth.state import AuthDep
from chassis.database import ReadSessionDep
from chassis.problems import VALIDATION_TYPE, Problem, problems
from chassis.runtime import RuntimeDep
from chassis.security import Principal, requires

router = APIRouter(prefix="/users", tags=["users"])


@router.post(
    "",
    status_code=201,
    summary="Sign up",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **problems(409, 422, 503),
    },
)
async def sign_up(body: NewUser, auth: AuthDep, runtime: RuntimeDep, response: Response) -> User:
    """Make an account with an e-mail address and a password.

    409 tells that an address is taken. Without a confirmation by mail that cannot be hidden: a
    sign-up that pretended to succeed would be found out by logging in. What limits asking is the
    rate limit of the gateway; every other endpoint answers alike for known and unknown addresses.
    """
    password = body.password.get_secret_value()
    try:
        passwords.check(password, email=body.email, minimum=auth.settings.password_min_length)
    except passwords.WeakPasswordError as exc:
        auth.metrics.signups.labels("weak_password").inc()
        raise Problem(
            422,
            detail=f"The password is refused: {exc}.",
            type=VALIDATION_TYPE,
            errors=[{"loc": ["body", "password"], "message": str(exc), "type": "weak_password"}],
        ) from None
    # Hashed before the address is looked up: both outcomes take the same time.
    password_hash = await auth.hasher.hash(password)
    try:
        user = await users.create(
            auth.database, auth.clock, email=body.email, password_hash=password_hash
        )
    except users.AccountExistsError:
        auth.metrics.signups.labels("taken").inc()
        raise Problem(
            409,
            detail="An account with this e-mail address exists. Log in instead.",
            type="urn:slipway:problem:account-exists",
        ) from None
    auth.metrics.signups.labels("created").inc()
    runtime.log.info("user.created", user_id=user.id)
    response.headers["Location"] = "/v1/users/me"
    return User.of(user)


@router.get("/me", summary="Read your account", responses=problems(401, 403, 404))
async def read_me(
    session: ReadSessionDep, caller: Annotated[Principal, requires("profile")]
) -> User:
    """Return the account that the token belongs to. A service's own token has none: 404."""
    row = await users.by_id(session, caller.subject)
    if row is None:
        raise Problem(404, detail="This token does not belong to a user.")
    return User.of(row)
