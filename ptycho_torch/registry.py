"""Named things that a study chooses from: the project's own and those of other packages.

A registry maps a name to `"module:attribute"`. Names are known at once; the module is imported when
its entry is asked for, so that listing names costs nothing. Another installed package adds an entry
under the registry's entry-point group, in its pyproject.toml:

    [project.entry-points."fly64.methods"]
    blur = "my_package.blur:Blur"
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import WrapValidator

from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import nearest

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Name -> entry, in the order of the project's own names and then of other packages'.

    `kind` is what an error calls an entry, `group` the entry-point group of other packages."""

    def __init__(self, kind: str, group: str, own: Mapping[str, str]) -> None:
        self.kind, self.group, self._own = kind, group, own

    @cached_property
    def _places(self) -> dict[str, EntryPoint]:
        places = {name: EntryPoint(name, place, self.group) for name, place in self._own.items()}
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            if (known := places.setdefault(point.name, point).value) != point.value:
                text = f"{self.kind} {point.name!r} is {known} and, in the package"
                text += f" {point.dist.name}, {point.value}; uninstall it or rename its entry"
                raise ConfigError(text)
        return places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def names(self) -> Any:
        """The type of a field that takes one of the names: a command's help then lists them."""
        return Annotated[Literal[tuple(self)], WrapValidator(lambda name, _: self.check(name))]

    def check(self, name: str) -> str:
        """The name; an unknown one is refused, with the nearest known one."""
        if name not in self._places:
            text = f"{self.kind}={name!r} is not known{nearest(name, self._places)}; there are"
            text += f" {', '.join(self._places)}. Another package adds one by an entry point of the"
            raise ConfigError(f"{text} group {self.group} (docs/extending.md)")
        return name

    def __getitem__(self, name: str) -> T:
        try:
            return self._places[self.check(name)].load()
        except (ImportError, AttributeError) as error:
            if name in self._own:
                raise
            text = f"{self.kind} {name!r} of another package cannot be loaded from"
            text += f" {self._places[name].value} ({error}); mend or uninstall that package"
            raise ConfigError(text) from error

    def file(self, name: str) -> Path:
        """The source file of an entry, without importing it."""
        spec = find_spec(self._places[self.check(name)].module)
        if spec is None or spec.origin is None:
            raise ConfigError(f"{self.kind} {name!r}: there is no {self._places[name].value}")
        return Path(spec.origin)
