"""Checked dataclasses: unknown names, wrong types and values out of range are refused by name, at
construction.

Used by every configuration of the project: the engine's, the study's design, and the notebooks'
parameters."""

import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

from ptycho_torch.errors import ConfigError

T = TypeVar("T")


def check_types(instance: object) -> None:
    """Refuse field values whose type is not the annotated one. An int passes for a float (and
    becomes one)."""
    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):  # type: ignore[arg-type]
        value = getattr(instance, field.name)
        if hints[field.name] is float and type(value) is int:
            object.__setattr__(instance, field.name, float(value))
        elif not _matches(value, hints[field.name]):
            raise ConfigError(
                f"{field.name}={value!r} is a {type(value).__name__}, expected"
                f" {_name(hints[field.name])}{_hint(value, hints[field.name])}"
            )


def check_choice(name: str, value: object, choices: typing.Iterable[object]) -> None:
    """Refuse a value that is not among `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_range(name: str, value: float | None, low: float, high: float = float("inf")) -> None:
    """Refuse a number outside [low, high] and one that is not finite; None passes (it means "not
    limited")."""
    if value is not None and not (low <= value <= high and value < float("inf")):
        raise ConfigError(
            f"{name}={value!r} lies outside [{low:g}, {high:g}"
            + ("]" if high < float("inf") else ")")
        )


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build `cls` from plain values; nested dataclasses and tuples are rebuilt; an unknown key
    fails with a guess."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    refuse_unknown(values, known, cls.__name__)
    hints = typing.get_type_hints(cls)
    built = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            value = from_dict(hint, value)
        elif isinstance(value, list) and _takes_tuple(hint):
            value = tuple(value)
        built[name] = value
    return cls(**built)


def refuse_unknown(names: typing.Iterable[str], known: typing.Collection[str], where: str) -> None:
    """Refuse names that `known` does not hold, with the nearest known one."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"unknown parameter {name!r} of {where}"
                + (f"; did you mean {near[0]!r}?" if near else ".")
                + f" Known: {', '.join(sorted(known))}"
            )


def _matches(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, option) for option in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_matches(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(k, arguments[0]) and _matches(v, arguments[1]) for k, v in value.items()
        )
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return type(value) in (int, float)
    if hint is int or hint is bool:
        return type(value) is hint
    return isinstance(value, hint)


def _takes_tuple(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple or any(map(_takes_tuple, typing.get_args(hint)))


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def _hint(value: object, hint: Any) -> str:
    if isinstance(value, str) and hint is bool:
        return " (papermill: pass True or False, capitalised)"
    return ""
