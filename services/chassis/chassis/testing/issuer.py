"""An authorization server for tests: real RSA keys, real JWTs, a real JWKS over HTTP."""

from __future__ import annotations

import json
import secrets
import threading
import time
from base64 import b64decode
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote_plus

from joserfc import jwt
from joserfc.jwk import KeyParameters, RSAKey

JWKS_PATH = "/.well-known/jwks.json"
TOKEN_PATH = "/v1/token"  # noqa: S105  (a path)
SERVICE_SCOPES = "inventory:reserve notifications:send events:deliver orders:read items:write"


class TestIssuer:
    """Issues tokens as auth does, and serves its keys at `jwks_url` while it is open.

    It also answers the client-credentials grant at `/v1/token`, for any client, so that a service
    under test gets a token of its own from `url`.
    """

    __test__ = False  # a name that begins with Test is no test class

    def __init__(
        self, issuer: str = "http://issuer.test", audience: str = "slipway", *, bits: int = 2048
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.keys: list[RSAKey] = []
        self._bits = bits
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.rotate()

    def rotate(self) -> RSAKey:
        """Add a new key, which signs from now on; the older ones stay in the JWKS."""
        kid = f"test-{len(self.keys) + 1}-{secrets.token_hex(4)}"
        parameters: KeyParameters = {"kid": kid, "use": "sig", "alg": "RS256"}
        self.keys.append(RSAKey.generate_key(self._bits, parameters, auto_kid=False))
        return self.keys[-1]

    @property
    def key(self) -> RSAKey:
        """The key that signs."""
        return self.keys[-1]

    @property
    def url(self) -> str:
        """Where this issuer listens, such as `http://127.0.0.1:40123`."""
        if self._server is None:
            raise RuntimeError("the issuer is not open")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def jwks_url(self) -> str:
        """Where the public keys are served."""
        return f"{self.url}{JWKS_PATH}"

    def jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set (RFC 7517): the public keys."""
        return {"keys": [dict(key.as_dict(private=False)) for key in self.keys]}

    def token(
        self,
        subject: str = "u1",
        scopes: str | Iterable[str] = "",
        *,
        expires_in: float = 3600,
        issued_at: float | None = None,
        key: RSAKey | None = None,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed access token (RFC 9068).

        Args:
            subject: the claim `sub`.
            scopes: space-separated, or several strings.
            expires_in: lifetime in seconds.
            issued_at: `iat` and `nbf` as seconds since the epoch; now when not given.
            key: the signing key; the newest one when not given.
            headers: added to the JOSE header; the value None removes one.
            claims: added to the claims; the value None removes one.
        """
        signer = key or self.key
        begin = int(time.time() if issued_at is None else issued_at)
        body: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": subject,
            "scope": scopes if isinstance(scopes, str) else " ".join(scopes),
            "iat": begin,
            "nbf": begin,
            "exp": int(begin + expires_in),
            "jti": secrets.token_hex(16),
        }
        header: dict[str, Any] = {"alg": "RS256", "typ": "at+jwt", "kid": signer.kid}
        body = {name: value for name, value in {**body, **claims}.items() if value is not None}
        header = {
            name: value
            for name, value in {**header, **(headers or {})}.items()
            if value is not None
        }
        return jwt.encode(header, body, signer, default_type=None)

    def authorization(self, subject: str = "u1", scopes: str = "", **claims: Any) -> dict[str, str]:
        """Return the request header that carries a token for `subject`."""
        return {"Authorization": f"Bearer {self.token(subject, scopes, **claims)}"}

    def __enter__(self) -> Self:
        """Listen on an ephemeral loopback port, in a thread."""
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="test-issuer", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, issuer: TestIssuer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = issuer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        if self.path == JWKS_PATH:
            self._answer(200, self.server.issuer.jwks())
        else:
            self._answer(404, {"title": "Not Found", "status": 404})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[-1] for name, values in parse_qs(body).items()}
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if self.path != TOKEN_PATH or form.get("grant_type") != "client_credentials":
            self._answer(400, {"error": "unsupported_grant_type"})
        elif scheme.lower() != "basic":
            self._answer(401, {"error": "invalid_client"})
        else:
            client = unquote_plus(b64decode(credentials).decode().partition(":")[0])
            scope = form.get("scope", SERVICE_SCOPES)
            token = self.server.issuer.token(client, scope)
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
            self._answer(200, {**answer, "scope": scope})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (overrides)
        """Stay silent: test output is for tests."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
