"""Conditional requests by RFC 9110."""

import pytest

from chassis.etags import etag, not_modified, require_match, strong_match, weak_match
from chassis.problems import Problem


def test_a_tag_is_quoted():
    assert etag(3) == '"3"'
    assert etag("a-b", weak=True) == 'W/"a-b"'


@pytest.mark.parametrize("version", ['a"b', "a b", "a\nb", "\N{EURO SIGN}"])
def test_a_version_that_cannot_be_a_tag_is_refused(version):
    """A quote or a line break would break the header apart."""
    with pytest.raises(ValueError, match="cannot be an entity tag"):
        etag(version)


@pytest.mark.parametrize(
    ("header", "strong", "weak"),
    [
        ('"1"', True, True),  # the table of RFC 9110, section 8.8.3.2
        ('W/"1"', False, True),
        ('W/"2"', False, False),
        ('"2"', False, False),
        ("*", True, True),
        (" * ", True, True),
        ('"0", "1"', True, True),
        ('"0",W/"1"', False, True),
        ('"0" , "1" ', True, True),
        ('"a,b", "1"', True, True),  # a comma inside a tag
        ("1", False, False),  # not quoted
        ('w/"1"', False, False),  # W is case-sensitive
        ('"0" "1"', False, False),  # no comma
        ('"0",, "1"', False, False),
        ("", False, False),
        ('"1', False, False),
    ],
)
def test_comparison(header, strong, weak):
    """Strong comparison needs two strong tags; a malformed list matches nothing."""
    assert strong_match(header, 1) is strong
    assert weak_match(header, 1) is weak


def test_a_change_without_if_match_is_428():
    with pytest.raises(Problem) as raised:
        require_match(None, 1)
    assert raised.value.status == 428


def test_a_change_of_another_version_is_412_and_tells_the_current_one():
    with pytest.raises(Problem) as raised:
        require_match('"1"', 2)
    assert raised.value.status == 412
    assert raised.value.headers["ETag"] == '"2"'


def test_a_weak_tag_never_permits_a_change():
    """RFC 9110, section 13.1.1: If-Match compares strongly."""
    with pytest.raises(Problem) as raised:
        require_match('W/"2"', 2)
    assert raised.value.status == 412


@pytest.mark.parametrize("header", ['"2"', '"1", "2"', "*"])
def test_a_change_of_the_current_version_passes(header):
    require_match(header, 2)


def test_not_modified():
    """If-None-Match compares weakly; without it a read is answered in full."""
    assert not_modified('W/"7"', 7)
    assert not_modified("*", 7)
    assert not not_modified('"8"', 7)
    assert not not_modified(None, 7)
