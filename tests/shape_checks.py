"""Shapes and dtypes in signatures, checked at every call, and not twice for the same ones.

Whether a call keeps its annotations follows from the types, dtypes and shapes of what goes in and
comes out. Those that a function has passed with once are remembered, for a check takes longer than
the work on a small array. A function that nobody calls is not prepared for checking at all."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jaxtyping

_JAXTYPED = jaxtyping.jaxtyped
MOST = 8  # items of a container that are looked at; longer ones are checked at every call


class _Unknown(Exception):
    """A value that tells too little by its type."""


def install(modules: list[str]) -> None:
    """Check what these modules define, wherever they are imported from now on."""
    jaxtyping.jaxtyped = _prepared
    jaxtyping.install_import_hook(modules, "beartype.beartype")


def _prepared(*, typechecker: Callable) -> Callable:
    """In the place of `jaxtyping.jaxtyped`, whose decorators the import hook puts into a module."""
    decorate = _JAXTYPED(typechecker=typechecker)
    return lambda one: (
        _once_for_each_kind(one, decorate) if isinstance(one, types.FunctionType) else decorate(one)
    )


def _once_for_each_kind(function: Callable, decorate: Callable) -> Callable:
    """The function, checked by `decorate` unless what goes in and comes out is known to pass."""
    held: list[Any] = []  # a result that is there already and is only to be checked
    passed: dict[Any, set] = {}

    @functools.wraps(function)
    def made_or_held(*arguments, **named):
        return held.pop() if held else function(*arguments, **named)

    @functools.cache
    def checked() -> Callable:
        return decorate(made_or_held)

    @functools.wraps(function)
    def wrapper(*arguments, **named):
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **named)
        try:
            given = _kind(arguments), _kind(tuple(named.items()))
        except _Unknown:
            return checked()(*arguments, **named)
        if (results := passed.get(given)) is None:
            result = checked()(*arguments, **named)
            results = passed.setdefault(given, set())
        else:
            result = function(*arguments, **named)
            try:
                if _kind(result) in results:
                    return result
            except _Unknown:
                pass
            held.append(result)
            checked()(*arguments, **named)
        try:
            results.add(_kind(result))
        except _Unknown:
            pass
        return result

    return wrapper


def _kind(value: object) -> Any:
    """What annotations can tell of a value."""
    if (dtype := getattr(value, "dtype", None)) is not None:  # an array
        return type(value), dtype, value.shape
    if value is None or isinstance(value, str | int):  # bool too
        return type(value), value
    if not isinstance(value, tuple | list | dict | set | frozenset):
        return type(value)
    if len(value) > MOST or isinstance(value, set | frozenset):
        raise _Unknown
    return type(value), *map(_kind, value.items() if isinstance(value, dict) else value)
