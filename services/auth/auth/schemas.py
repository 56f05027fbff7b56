"""Bodies of requests and answers."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
)

from auth import emails, passwords
from auth.models import ApiKey as ApiKeyRow
from auth.models import User as UserRow
from auth.scopes import parse
from auth.users import login_scopes
from chassis.moments import Moment

Email = Annotated[
    str,
    AfterValidator(emails.normalise),
    Field(
        max_length=emails.MAX_LENGTH,
        description="Compared without case. ASCII; an international domain in its xn-- form.",
        examples=["ada@example.com"],
    ),
]
Time = Annotated[
    datetime,
    PlainSerializer(
        lambda value: value.astimezone(UTC).isoformat().replace("+00:00", "Z"), when_used="json"
    ),
]
ScopeName = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,64}$")]
Name = Annotated[
    str,
    Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["nightly sync"]),
]
EMAIL_EXAMPLE = "ada@example.com"
PASSWORD_EXAMPLE = "seven wet otters hum"  # noqa: S105  (an example)


class NewUser(BaseModel):
    """A sign-up."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"email": EMAIL_EXAMPLE, "password": PASSWORD_EXAMPLE}]},
    )

    email: Email
    password: SecretStr = Field(
        max_length=passwords.MAX_LENGTH,
        description="At least 12 characters by default, any of them, and not a common password.",
    )


class User(BaseModel):
    """A person with an account."""

    id: str = Field(examples=["01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a11"])
    email: str = Field(examples=[EMAIL_EXAMPLE])
    scopes: list[str] = Field(examples=[["profile", "orders:read", "orders:write"]])
    created_at: Time

    @classmethod
    def of(cls, row: UserRow) -> "User":
        """Show a stored user."""
        return cls(
            id=row.id,
            email=row.email,
            scopes=list(login_scopes(row)),
            created_at=row.created_at,
        )


class TokenForm(BaseModel):
    """The form of `POST /v1/token`; which fields a grant needs is in RFC 6749."""

    grant_type: Literal["password", "refresh_token", "client_credentials"]
    username: str | None = Field(default=None, description="password: the e-mail address")
    password: str | None = Field(default=None, description="password: the password")
    refresh_token: str | None = Field(default=None, description="refresh_token: the token")
    scope: str | None = Field(default=None, description="Ask for less than you may have.")
    client_id: str | None = Field(default=None, description="client_credentials, without Basic")
    client_secret: str | None = Field(default=None, description="client_credentials, without Basic")


class RevocationForm(BaseModel):
    """The form of `POST /v1/token/revoke` (RFC 7009)."""

    token: str
    token_type_hint: str | None = None


class TokenResponse(BaseModel):
    """A successful answer of the token endpoint (RFC 6749 section 5.1)."""

    access_token: str = Field(examples=["eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9..."])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  (the name of a scheme)
    expires_in: int = Field(description="Seconds.", examples=[900])
    refresh_token: str | None = Field(
        default=None,
        description="Works once; exchange it for the next. Not given to clients that are services.",
    )
    scope: str = Field(examples=["profile orders:read orders:write notifications:read"])


class OAuthProblem(BaseModel):
    """An error in the terms of OAuth (RFC 6749 section 5.2) and of problems (RFC 9457) at once."""

    model_config = ConfigDict(extra="allow")

    error: str = Field(examples=["invalid_grant"])
    error_description: str = Field(examples=["The credentials are wrong."])
    type: str = Field(examples=["urn:slipway:problem:invalid-grant"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str
    instance: str | None = None
    request_id: str | None = None
    trace_id: str | None = None


class NewApiKey(BaseModel):
    """A request for an API key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "nightly sync", "scopes": ["orders:read"]}]},
    )

    name: Name
    scopes: list[ScopeName] = Field(
        min_length=1,
        max_length=50,
        description="Some of the scopes of your own token, but not keys:manage.",
    )
    expires_at: Moment | None = Field(
        default=None, description="In 90 days if not given; 365 days at most (both are settings)."
    )


class ApiKey(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: Time
    expires_at: Time
    revoked_at: Time | None
    last_used_at: Time | None = Field(description="Exact to a minute.")

    @classmethod
    def of(cls, row: ApiKeyRow) -> "ApiKey":
        """Show a stored key."""
        return cls.model_validate(cls.members(row))

    @staticmethod
    def members(row: ApiKeyRow) -> dict[str, object]:
        """Return what is shown of a stored key."""
        return {
            "id": row.id,
            "name": row.name,
            "scopes": list(parse(row.scopes)),
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "revoked_at": row.revoked_at,
            "last_used_at": row.last_used_at,
        }


class ApiKeyWithSecret(ApiKey):
    """A new API key. `key` is shown this once."""

    key: str = Field(examples=["slk_01981f3c-7d5e-7c3a-9b57-0c2f5b0d9a11_nW3...Q"])


class LoginResult(BaseModel):
    """Who the `Authorization` header belongs to."""

    subject: str = Field(description="The id of a user, or of a service.")
    scopes: list[str]
    method: Literal["password", "token", "api_key"]
