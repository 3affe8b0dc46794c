from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imageworks import contract


@dataclass(frozen=True, slots=True)
class Pair:
    second: Any
    first: Any


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers(), inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_contract_values_are_written_as_the_standard_library_writes_them(value: Any) -> None:
    plain = dataclasses.asdict(Pair(value, 0))["second"]
    assert contract.to_json(value) == json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Quiet:
    said: int = 1
    schema: int = 1


def test_what_goes_without_saying_is_not_written_but_the_schema_number_is() -> None:
    assert json.loads(contract.to_json([Quiet(), Quiet(said=2)])) == [{"schema": 1}, {"said": 2, "schema": 1}]


@given(VALUES, VALUES)
def test_what_was_rendered_before_stands_in_another_value_as_if_made_there(value: Any, beside: Any) -> None:
    rendered = contract.Rendered(contract.to_json(value))
    assert contract.to_json({"a": [rendered], "b": beside}) == contract.to_json({"a": [value], "b": beside})
