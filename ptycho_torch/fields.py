"""Checked configurations: unknown names, wrong types and values out of range are refused by name.

Every configuration of the project is one: the engine's, the study's design, the methods' settings,
the notebooks' parameters. A field states what it takes in its annotation, and the comment behind it
says what it is:

    @config
    class Classical:
        steps: Positive = 80  # of the last fit
        probe: Literal["known", "refine"] = "known"  # the file's is kept, or corrected
        keep: Annotated[float, Field(ge=0.05, le=0.99)] = 0.8  # share of the photons

pydantic does the checking. A list passes for a tuple, text for the number or mapping that it holds
(papermill's command line and YAML's `1e4` give text), and becomes it."""

import ast
import difflib
import functools
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from tyro.constructors import PrimitiveConstructorSpec

from ptycho_torch.errors import ConfigError

T = TypeVar("T")


def literal(value: object) -> Any:
    """The value that text holds as Python or JSON writes it (`1e5`, `None`, `[2, 10]`,
    `{"steps": 40}`); other text, and what is no text, stays."""
    for read in (ast.literal_eval, json.loads):
        with suppress(ValueError, SyntaxError):
            return read(value) if isinstance(value, str) else value
    return value


def _several(value: object) -> object:
    value = literal(value)
    if isinstance(value, str):
        value = [literal(one.strip()) for one in value.split(",")]
    return value if isinstance(value, list | tuple) else (value,)


def _different(values: tuple) -> tuple:
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"{values} must be different values, at least one")
    return values


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ConfigError(f"{value} is no number")
    if isinstance(value, list | tuple):
        raise ConfigError(f"{value} is a list, expected one number")
    read = literal(value)
    return read if type(read) in (int, float) else value


Whole = Annotated[int, BeforeValidator(_number)]
Positive = Annotated[Whole, Field(ge=1)]
Seed = Annotated[Whole, Field(ge=0, le=2**31)]
Threads = Annotated[Whole, Field(ge=1, le=1024)]
Number = Annotated[float, BeforeValidator(_number)]
# On a command line a mapping is one word, as JSON or Python writes it.
_MAPPING = PrimitiveConstructorSpec(
    nargs=1,
    metavar="MAPPING",
    instance_from_str=lambda words: literal(words[0]),
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda value: [str(value)],
)
# of a dataclass named elsewhere, which checks them
Settings = Annotated[dict[str, Any], BeforeValidator(literal), _MAPPING]
# On a tuple: one value passes for it, and text such as "dense,sparse" (papermill passes no lists).
SEVERAL = BeforeValidator(_several)
# such as Distinct[int]: likewise, at least one value, and no value twice
Distinct = Annotated[tuple[T, ...], SEVERAL, AfterValidator(_different)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def config(cls: type[T]) -> type[T]:
    """Make a frozen keyword-only dataclass whose values are checked when it is made.

    Raises :class:`ConfigError` with every value that is refused, and why."""
    checked = dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})(cls)
    build = checked.__init__

    @functools.wraps(build)
    def __init__(self: object, *none: object, **values: object) -> None:
        try:
            build(self, *none, **values)
        except ValidationError as error:
            raise ConfigError("; ".join(_reasons(error, cls))) from error

    checked.__init__ = __init__  # type: ignore[method-assign]
    return checked


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a configuration from plain values, nested ones too; an unknown key fails."""
    return cls(**values)


def to_dict(instance: object) -> dict[str, Any]:
    """Plain JSON-ready values; :func:`from_dict` is the way back."""
    return TypeAdapter(type(instance)).dump_python(instance, mode="json")


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"training.steps": 10}` of nested values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{above}{name}.") if nested else {above + name: value}
    return found


def field_names(cls: type) -> list[str]:
    """Names of a dataclass's fields, in order."""
    return [field.name for field in fields(cls)]


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not among `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def refuse_unknown(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Refuse names that `known` does not hold, with the nearest known one."""
    for name in names:
        if name not in known:
            raise ConfigError(_unknown(name, known, where))


def _unknown(name: str, known: Collection[str], where: str) -> str:
    hint = nearest(name, known) or "."
    return f"unknown parameter {name!r} of {where}{hint} Known: {', '.join(sorted(known))}"


def nearest(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'dose'?` for a misspelt name; empty where nothing is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _reasons(error: ValidationError, cls: type) -> Iterable[str]:
    """One sentence for each value that was refused."""
    for one in error.errors(include_url=False):
        place = ".".join(str(part) for part in one["loc"])
        cause = one.get("ctx", {}).get("error")
        if one["type"] == "unexpected_keyword_argument":
            *path, name = one["loc"]
            owner = ".".join(map(str, (cls.__name__, *path)))
            deep = f"unknown parameter {name!r} of {owner}."
            yield deep if path else _unknown(name, field_names(cls), owner)
        elif isinstance(cause, ConfigError):
            named = not place or str(cause).startswith(f"{place}=")
            yield str(cause) if named else f"{place}: {cause}"
        else:
            says = one["msg"].removeprefix("Input should be ")
            yield f"{place}={one['input']!r}: expected {says}"
