"""JSON merge patch by RFC 7396."""

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from chassis.merge_patch import merge_patch, patched


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396(document, patch, result):
    """Appendix A of the standard, all of it."""
    assert merge_patch(document, patch) == result


def test_neither_document_nor_patch_is_modified():
    document, patch = {"a": {"b": 1}}, {"a": {"b": None}, "c": 2}
    assert merge_patch(document, patch) == {"a": {}, "c": 2}
    assert (document, patch) == ({"a": {"b": 1}}, {"a": {"b": None}, "c": 2})


class _Thing(BaseModel):
    name: str
    size: int = 3


def test_a_patched_document_is_checked_and_filled_with_its_defaults():
    """What breaks the model is named as a field of the body."""
    assert patched(_Thing.model_validate, {"name": "a", "size": 1}, {"size": None}).size == 3
    with pytest.raises(RequestValidationError) as refused:
        patched(_Thing.model_validate, {"name": "a"}, {"name": None, "size": "x"})
    assert [error["loc"] for error in refused.value.errors()] == [
        ("body", "name"),
        ("body", "size"),
    ]
