"""Checks that what pydantic finds in a JSON file is one sentence."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.validation import validated


@dataclass(frozen=True, kw_only=True)
class Inner:
    names: tuple[str, ...] = ()
    number: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    kind: Literal["shared", "disjoint"] = "shared"
    inner: dict[str, Inner]
    text: str | None = None
    is_on: bool = False


GOOD = {"count": 3, "inner": {"a": {"names": ["x"], "number": 2}}, "text": None, "later": "of a later version"}


def test_objects_and_lists_become_dataclasses_and_tuples():
    assert validated(Outer, GOOD, "f", "") == Outer(count=3, inner={"a": Inner(names=("x",), number=2.0)})
    assert math.isnan(validated(list[float], [math.nan], "f", "")[0])


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"count": "3"}, "has '3' for 'count', but it must be a whole number"),
        ({"count": True}, "has true for 'count', but it must be a whole number"),
        ({"count": 3.0}, "has 3.0 for 'count', but it must be a whole number"),
        ({"count": None}, "has null for 'count', but it must be a whole number"),
        ({"count": math.inf}, "has inf for 'count', but it must be a whole number"),
        ({"kind": "dealt"}, "has 'dealt' for 'kind', but it must be 'shared' or 'disjoint'"),
        ({"kind": None}, "has null for 'kind'"),
        ({"inner": []}, "has [] for 'inner', but it must be an object"),
        ({"inner": {"a": 1}}, "has 1 for 'inner.a', but it must be an object"),
        ({"inner": {"a": {"names": "x"}}}, "has 'x' for 'inner.a.names', but it must be a list"),
        ({"inner": {"a": {"names": ["x", 2]}}}, "has 2 for 'inner.a.names[1]', but it must be a text"),
        ({"inner": {"a": {"number": "1"}}}, "has '1' for 'inner.a.number', but it must be a number"),
        ({"text": 5}, "has 5 for 'text', but it must be a text"),
        ({"is_on": 1}, "has 1 for 'is_on', but it must be true or false"),
        ({"is_on": "y" * 500}, "has 'yyyy"),
    ],
    ids=str,
)
def test_the_first_value_of_another_type_is_named(changed, finding):
    with pytest.raises(CILError, match=re.escape(f"mine.json {finding}")) as error:
        validated(Outer, {**GOOD, **changed}, "mine.json", "Write it again.")
    assert str(error.value).endswith(". Write it again.")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ({}, "lacks 'count'"),
        ({"count": 1}, "lacks 'inner'"),
        ([], "holds [], but must hold an object"),
        (None, "holds null, but must hold an object"),
        (False, "holds false, but must hold an object"),
        ("count", "holds 'count', but must hold an object"),
    ],
    ids=str,
)
def test_what_is_missing_is_named(content, finding):
    with pytest.raises(CILError, match=re.escape(f"mine.json {finding}. Write it again.")):
        validated(Outer, content, "mine.json", "Write it again.")
