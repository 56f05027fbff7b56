"""E-mail addresses and scopes: what is taken and in which spelling it is kept."""

import pytest

from auth import emails, scopes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+x@EXAMPLE.Com ", "ada.lovelace+x@example.com"),
        ("o'hara@mail.example.co.uk", "o'hara@mail.example.co.uk"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_spelling(given: str, kept: str) -> None:
    """Case and blanks around do not make another account."""
    assert emails.normalise(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@localhost",
        "ada@-a.com",
        "a b@example.com",
        "ada@example..com",
        ".ada@example.com",
        "ada.@example.com",
        "a..b@example.com",
        "ada@example.com\x00",
        "ada@example.com\nBcc: x@y.z",
        "\u0430da@example.com",
        "\u212aate@example.com",
        f"{'a' * 65}@example.com",
        f"ada@{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 63}.com",
        "' OR 1=1 --@example.com",
    ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    """Cyrillic look-alikes, the Kelvin sign, control characters and overlong parts included."""
    with pytest.raises(ValueError, match="not an e-mail address"):
        emails.normalise(given)


def test_scopes_are_split_without_repetition() -> None:
    """The order stays; blanks in excess are forgiven."""
    assert scopes.parse(" b  a b ") == ("b", "a")
    assert scopes.join(["b", "a", "b"]) == "b a"


@pytest.mark.parametrize("text", ['a "b"', "a\\b", "ä", "a\tb", "a\x00", "x" * 65, "a " * 1001])
def test_a_scope_of_other_characters_is_refused(text: str) -> None:
    """RFC 6749 section 3.3 fixes the characters; the length is bounded."""
    with pytest.raises(ValueError, match="scope"):
        scopes.parse(text)


def test_less_may_be_asked_for_and_never_more() -> None:
    """Nothing asked is everything allowed."""
    assert scopes.narrow(None, ["a", "b"]) == ("a", "b")
    assert scopes.narrow("b", ["a", "b"]) == ("b",)
    with pytest.raises(ValueError, match="scope c is not granted"):
        scopes.narrow("a c", ["a", "b"])
