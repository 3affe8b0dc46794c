"""Frozen dataclasses whose methods are made when they are first needed.

`dataclasses.dataclass` writes and compiles six functions for each class, 0.3 ms; the compiler declares a hundred
classes, and one run calls few of those functions. Here `dataclasses` only collects the fields (so `fields`, `replace`,
`asdict` and `match` know these classes as their own), comparison, hash and repr are closures over the fields, and
`__init__` is compiled at its first call (decision 084). Whoever reads the file sees `dataclasses.dataclass`; so does mypy.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

T = TypeVar("T")
Method = Callable[..., Any]
ORDER = ("__lt__", "__le__", "__gt__", "__ge__")


def _dataclass(*, slots: bool, frozen: bool = False, order: bool = False) -> Callable[[type[T]], type[T]]:
    """What `dataclasses.dataclass(slots=True, …)` does; every class here has slots."""
    if not slots:
        raise TypeError("a dataclass without slots is made by dataclasses.dataclass")

    def decorate(plain: type[T]) -> type[T]:
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(plain)
        names = made.__match_args__
        values = _values(names)
        methods = {name: _comparison(getattr(operator, name), values) for name in ("__eq__", *(ORDER if order else ()))}
        methods |= {"__init__": _first_init(made), "__repr__": _repr(names)}
        if frozen:
            methods |= {"__hash__": lambda self: hash(values(self)), "__reduce__": _reduce(values)}
            methods |= {"__setattr__": _set, "__delattr__": _delete}
        for name, method in methods.items():
            setattr(made, name, method)
        if not frozen:
            made.__hash__ = None
        return made  # type: ignore[no-any-return]

    return decorate


def _values(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """All fields of a value, in order."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _comparison(compare: Callable[[Any, Any], Any], values: Callable[[Any], tuple[Any, ...]]) -> Method:
    def method(self: object, other: object) -> Any:
        return compare(values(self), values(other)) if other.__class__ is self.__class__ else NotImplemented

    return method


def _repr(names: tuple[str, ...]) -> Method:
    def method(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return method


def _reduce(values: Callable[[Any], tuple[Any, ...]]) -> Method:
    return lambda self: (type(self), values(self))


def _set(_: object, name: str, value: object) -> None:
    del value
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(_: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _first_init(made: Any) -> Method:
    """An `__init__` that puts the real one in its place."""

    def first(self: object, *args: Any, **named: Any) -> None:
        made.__init__ = _init(made)
        made.__init__(self, *args, **named)

    return first


def _init(made: Any) -> Method:
    """The `__init__` of a class: each argument, default or made default into its slot, past `__setattr__`."""
    known: dict[str, Any] = {"MISSING": dataclasses.MISSING}
    parameters, body = [], []
    for field in dataclasses.fields(made):
        name = field.name
        if not (field.init and field.repr and field.compare) or field.hash is not None:
            raise TypeError(f"{made.__qualname__}.{name}: of the options of `field` only defaults are known here")
        known |= {f"set_{name}": getattr(made, name).__set__, f"default_{name}": field.default}
        value = name
        if field.default_factory is not dataclasses.MISSING:
            known[f"make_{name}"] = field.default_factory
            value = f"make_{name}() if {name} is MISSING else {name}"
            parameters.append(f"{name}=MISSING")
        else:
            parameters.append(name if field.default is dataclasses.MISSING else f"{name}=default_{name}")
        body.append(f"set_{name}(self, {value})")
    if hasattr(made, "__post_init__"):
        body.append("self.__post_init__()")
    source = f"def __init__(self, {', '.join(parameters)}):\n " + "\n ".join(body or ["pass"])
    exec(source, known)  # noqa: S102 - names of our own fields, as in dataclasses
    method: Method = known["__init__"]
    method.__qualname__ = f"{made.__qualname__}.__init__"
    return method


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass
