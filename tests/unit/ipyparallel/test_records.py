"""Queries over records, in ipyparallel's language."""

from __future__ import annotations

from typing import Any

import pytest

from nsactors.ipyparallel.client.records import matches

RECORD = {"msg_id": "a", "label": "sweep_3", "n": 5, "completed": None, "header": {"msg_type": "apply_request"}}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, True),
        ({"msg_id": "a"}, True),
        ({"msg_id": "b"}, False),
        ({"completed": None}, True),
        ({"completed": {"$ne": None}}, False),
        ({"n": {"$gt": 4, "$lte": 5}}, True),
        ({"n": {"$lt": 5}}, False),
        ({"completed": {"$lt": 5}}, False),
        ({"n": {"$mod": [5, 0]}}, True),
        ({"msg_id": {"$in": ["a", "b"]}}, True),
        ({"msg_id": {"$nin": ["a", "b"]}}, False),
        ({"label": {"$nin": ""}}, True),
        ({"completed": {"$nin": ""}}, False),
        ({"label": {"$glob": "sweep_*"}}, True),
        ({"label": {"$glob": "*x*"}}, False),
        ({"label": {"$regex": "_[0-9]$"}}, True),
        ({"completed": {"$exists": False}}, True),
        ({"header.msg_type": "apply_request"}, True),
        ({"unheard_of": {"$eq": 1}}, False),
    ],
)
def test_a_query_is_met_or_not(query: dict[str, Any], found: bool) -> None:
    assert matches(RECORD, query) is found


def test_an_operator_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"no operator '\$near'.*\$glob"):
        matches(RECORD, {"n": {"$near": 1}})
