"""Attacks on auth: forged tokens, hostile input. Each is tried for real, over HTTP."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

SQL = "'; DROP TABLE users; --"


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def forge(api: Any) -> dict[str, str]:
    """Return forged tokens by the name of the attack; each copies a good one."""
    good = await api.auth.issuer.issue("victim", ["profile"], client_id="slipway")
    generation = await api.auth.keys.active()
    key, kid = generation.key, generation.kid
    claims = jwt.decode(good.value, key).claims
    header = {"alg": "RS256", "typ": "at+jwt", "kid": kid}
    own = RSAKey.generate_key(2048)
    pem = key.as_pem(private=False)

    def signed(signer: Any = key, head: dict[str, Any] | None = None, **changes: Any) -> str:
        body = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode({**header, **(head or {})}, body, signer, default_type=None)

    def hmac_signed(secret: bytes) -> str:
        text = f"{b64({**header, 'alg': 'HS256'})}.{b64(claims)}"
        return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    def critical() -> str:
        text = f"{b64({**header, 'crit': ['b64'], 'b64': False})}.{b64(claims)}"
        made = key.private_key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{b64(made)}"

    head, body, signature = good.value.split(".")
    admin = b64({**claims, "scope": "profile keys:admin"})
    now = int(time.time())
    return {
        "alg none": f"{b64({**header, 'alg': 'none'})}.{body}.",
        "alg None": f"{b64({**header, 'alg': 'None'})}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "public key as HMAC secret": hmac_signed(pem),
        "modulus as HMAC secret": hmac_signed(str(key.as_dict(private=False)["n"]).encode()),
        "empty HMAC secret": hmac_signed(b""),
        "expired": signed(iat=now - 1000, nbf=now - 1000, exp=now - 100),
        "not yet valid": signed(nbf=now + 600, exp=now + 900),
        "without expiry": signed(exp=None),
        "wrong audience": signed(aud="another"),
        "without audience": signed(aud=None),
        "wrong issuer": signed(iss="http://evil.test"),
        "without subject": signed(sub=None),
        "another type": signed(head={"typ": "JWT"}),
        "unknown kid": signed(own, {"kid": "unknown"}),
        "known kid, other key": signed(own),
        "without kid": signed(head={"kid": ""}),
        "kid as a path": signed(own, {"kid": "../../../../dev/null"}),
        "kid as SQL": signed(own, {"kid": "x' UNION SELECT 'x"}),
        "own key in the header": signed(own, {"jwk": own.as_dict(private=False)}),
        "own key set in the header": signed(own, {"jku": "http://evil.test/jwks.json"}),
        "critical header": critical(),
        "tampered claims": f"{head}.{admin}.{signature}",
        "tampered signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "scope as a list": signed(scope=["keys:admin"]),
        "not JSON": f"{head}.{b64(b'not json')}.{signature}",
        "oversized": f"{head}.{b64({'x': 'y' * 100_000})}.{signature}",
        "symmetric": jwt.encode({**header, "alg": "HS256"}, claims, OctKey.generate_key(256)),
    }


async def test_no_forged_token_is_accepted(api: Any) -> None:
    """Neither by the API nor by /login/: each is 401 with a challenge, and none is 5xx."""
    for name, token in (await forge(api)).items():
        headers = {"Authorization": f"Bearer {token}"}
        for answer in (
            await api.http.get("/v1/users/me", headers=headers),
            await api.http.get("/v1/keys", headers=headers),
            await api.http.post("/login/", headers=headers),
        ):
            assert answer.status_code == 401, (name, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "Bearer" in answer.headers["www-authenticate"]


async def test_a_refresh_token_is_no_access_token_and_the_reverse(api: Any) -> None:
    """Each works at one place only."""
    session = await api.session()
    headers = {"Authorization": f"Bearer {session['refresh_token']}"}
    assert (await api.http.get("/v1/users/me", headers=headers)).status_code == 401
    assert (await api.http.post("/login/", headers=headers)).status_code == 401
    assert (await api.refresh(session["access_token"])).json()["error"] == "invalid_grant"


async def test_sql_in_every_field_is_text(api: Any) -> None:
    """Nothing is a 5xx, nothing is dropped, and where it may be stored it comes back as it was."""
    headers = await api.bearer()
    made = await api.http.post(
        "/v1/keys", headers=headers, json={"name": SQL, "scopes": ["profile"]}
    )
    assert made.status_code == 201
    assert made.json()["name"] == SQL
    tried = [
        await api.sign_up(SQL),
        await api.sign_up(f"{SQL}@example.com"),
        await api.log_in(SQL, SQL),
        await api.log_in(password=SQL),
        await api.log_in(scope=SQL),
        await api.log_in(client_id=SQL),
        await api.refresh(SQL),
        await api.http.post("/v1/token", data={"grant_type": SQL}),
        await api.http.post(
            "/v1/token", data={"grant_type": "client_credentials"}, auth=(SQL, SQL)
        ),
        await api.http.post("/v1/token/revoke", data={"token": SQL, "token_type_hint": SQL}),
        await api.http.get("/v1/keys", headers=headers, params={"cursor": SQL, "limit": SQL}),
        await api.http.delete(f"/v1/keys/{SQL}", headers=headers),
        await api.http.post("/internal/exchange", headers={"X-API-Key": f"slk_{SQL}_{SQL}"}),
        await api.http.post("/login/", headers={"Authorization": f"ApiKey slk_{SQL}_x"}),
    ]
    assert all(answer.status_code < 500 for answer in tried)
    assert not any(answer.status_code == 201 for answer in tried)
    assert (await api.http.get("/v1/users/me", headers=headers)).status_code == 200
    assert (await api.http.get("/v1/keys", headers=headers)).json()["items"][0]["name"] == SQL


async def test_malformed_and_oversized_bodies_are_problems(api: Any) -> None:
    """400, 413 or 422, whatever comes."""
    headers = await api.bearer()
    nested = b"[" * 100_000 + b"]" * 100_000
    for path in ("/v1/users", "/v1/keys"):
        for body, statuses in (
            (b"{", {400}),
            (b"", {400, 422}),
            (b"null", {422}),
            (b"[]", {422}),
            (b'"text"', {422}),
            (b"\xff\xfe", {400, 422}),
            (b'{"email": "a\\u0000@b.co", "name": "a\\u0000", "scopes": ["x"]}', {422}),
            (b'{"email": "\\ud800", "name": "\\ud800", "scopes": ["x"]}', {422}),
            (nested, {400, 422}),
            (b'{"email": "' + b"x" * 1_100_000 + b'"}', {413}),
        ):
            typed = {**headers, "Content-Type": "application/json"}
            answer = await api.http.post(path, headers=typed, content=body)
            assert answer.status_code in statuses, (path, body[:30], answer.text[:300])
            assert answer.headers["content-type"] == "application/problem+json"
            assert "Traceback" not in answer.text


async def test_no_log_line_holds_a_secret_or_an_address(api: Any, capfd: Any, caplog: Any) -> None:
    """Sign-up, logins good and bad, keys, exchange, logout: searched in all that was written."""
    session = await api.session()
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    body = {"name": "x", "scopes": ["profile"]}
    key = (await api.http.post("/v1/keys", headers=headers, json=body)).json()["key"]
    await api.http.post("/internal/exchange", headers={"X-API-Key": key})
    await api.http.post("/internal/exchange", headers={"X-API-Key": key + "x"})
    for _ in range(6):
        await api.log_in(password="wrong and secret")
    await api.http.post("/v1/token/revoke", data={"token": session["refresh_token"]})
    out, err = capfd.readouterr()
    written = out + err + caplog.text
    assert "login.success" in written
    assert "login.failure" in written
    assert "login.locked" in written
    assert "api_key.created" in written
    for secret in (
        api.email,
        api.password,
        "wrong and secret",
        key.split("_", 2)[2],
        session["refresh_token"],
        session["access_token"],
    ):
        assert secret not in written
