"""Our dataclasses behave as the standard library's do, for whoever makes, compares, copies or prints one."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import pytest

from imageworks.values import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Ours:
    """A value with every kind of default."""

    name: str
    size: int = 1
    tags: Mapping[str, int] = field(default_factory=dict)

    @property
    def twice(self) -> int:
        return self.size * 2


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Theirs:
    """The same, made by the standard library."""

    name: str
    size: int = 1
    tags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class One:
    """A single field."""

    value: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """No field."""


@dataclass(slots=True)
class Changing:
    """Not frozen, with work after it is made."""

    found: list[int] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.count = len(self.found)


BOTH: list[Any] = [Ours, Theirs]


@pytest.mark.parametrize("kind", BOTH)
def test_defaults_are_filled_in_and_made_anew(kind: Any) -> None:
    first, second = kind("a"), kind(name="a", size=1)
    assert (first.name, first.size, first.tags) == ("a", 1, {})
    assert first.tags is not second.tags
    assert first == second
    assert kind("a", tags={"x": 1}).tags == {"x": 1}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "arguments", [((), {}), (("a", 1, {}, 2), {}), (("a",), {"other": 1}), (("a",), {"name": "b"})]
)
def test_wrong_arguments_are_refused(kind: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    with pytest.raises(TypeError):
        kind(*arguments[0], **arguments[1])


@pytest.mark.parametrize("kind", BOTH)
def test_a_frozen_value_stays_as_it_is(kind: Any) -> None:
    value = kind("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'size'"):
        value.size = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'size'"):
        del value.size
    with pytest.raises((AttributeError, TypeError)):  # Python 3.11's own says TypeError for a name that is no field
        value.other = 2
    assert value.size == 1


@pytest.mark.parametrize("kind", BOTH)
def test_values_compare_by_their_fields_within_their_class(kind: Any) -> None:
    assert kind("a", 2) < kind("b", 1) <= kind("b", 1)
    assert kind("a", 2) > kind("a", 1) >= kind("a", 1)
    assert kind("a") != ("a", 1, {})
    with pytest.raises(TypeError):
        assert kind("a") < ("b",)


def test_equal_values_are_one_in_a_set() -> None:
    assert len({One(1), One(1), One(2)}) == 2
    assert {Nothing(), Nothing()} == {Nothing()}
    strangers: list[object] = [Theirs("a"), One(1), Nothing()]
    assert Ours("a") not in strangers


def test_the_text_of_a_value_is_that_of_the_standard_library() -> None:
    assert repr(Ours("a")).replace("Ours", "Theirs") == repr(Theirs("a"))
    assert (repr(One(1)), repr(Nothing())) == ("One(value=1)", "Nothing()")


def test_the_tools_of_dataclasses_know_it() -> None:
    value = Ours("a", 3)
    assert dataclasses.is_dataclass(value)
    assert [item.name for item in dataclasses.fields(Ours)] == ["name", "size", "tags"]
    assert dataclasses.asdict(value) == dataclasses.asdict(Theirs("a", 3))
    assert dataclasses.replace(value, size=4) == Ours("a", 4)
    assert value.twice == 6
    match value:
        case Ours(name, size):
            assert (name, size) == ("a", 3)


def test_a_value_can_be_copied_and_pickled() -> None:
    value = Ours("a", 3, {"x": 1})
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    assert copy.copy(One(1)) == One(1)


def test_a_changing_value_has_no_hash_and_may_be_prepared() -> None:
    value = Changing([1, 2])
    assert value.count == 2
    value.count = 5
    assert value != Changing([1, 2])
    assert value == copy.copy(value)
    with pytest.raises(TypeError):
        hash(value)


def test_options_that_it_does_not_know_are_refused() -> None:
    bare: Any = dataclass
    with pytest.raises(TypeError, match="without slots"):
        bare(slots=False)

    @dataclass(frozen=True, slots=True)
    class Hidden:
        shown: int
        hidden: int = field(default=0, repr=False)

    with pytest.raises(TypeError, match="hidden"):
        Hidden(1)


def test_most_of_the_compiler_is_declared_without_compiling_methods() -> None:
    """The reason for all this: declaring a class must not run `exec`, however many classes there are."""
    program = (
        "import sys, dataclasses, imageworks.plan.ir, imageworks.contract, imageworks.diagnostics.model\n"
        "kinds = [kind for name in ('plan.ir', 'contract', 'diagnostics.model')\n"
        "         for kind in vars(sys.modules[f'imageworks.{name}']).values()\n"
        "         if isinstance(kind, type) and dataclasses.is_dataclass(kind)]\n"
        "print(len(kinds), sum(kind.__init__.__module__ != 'imageworks.values' for kind in kinds))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, ready = map(int, done.stdout.split())
    assert count > 40
    assert ready <= 4  # those of which a default is made at once
