"""Which code of the two packages a notebook runs, as one hash: Snakemake does not see it.

The modules that the notebook's cells import, what those import, and so on; imports inside functions
count, and so does text that is a module's name, as in `[sys.executable, "-m",
"fly64lib.methods.ptychi_worker"]`. What a registry holds is found by name at run time, so the files
of the entries that a job uses are given beside the notebook. A change in a figure reruns the
notebooks that draw with it, not the trainings; one in a method those that use it."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from pathlib import Path

import fly64lib
import ptycho_torch

_ROOTS = {package.__name__: Path(package.__file__).parent for package in (fly64lib, ptycho_torch)}
# Names everything, and imports what is asked of it; notebooks import from where things are.
_FACE = Path(fly64lib.__file__)
_MODULE = re.compile(rf"({'|'.join(_ROOTS)})(\.\w+)+")


def code_hash(notebook: str | Path, entries: Iterable[Path] = ()) -> str:
    """Hash of a notebook's cells, of `entries` (files of the registry entries that it uses), and of
    all source files of the project that these reach."""
    code = _code(notebook)
    digest = hashlib.sha256(code.encode())
    for path in source_files(code, entries):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def imports_of(notebook: str | Path) -> list[str]:
    """What the notebook's cells import of the project: modules, and names in them."""
    names = _names(_code(notebook))
    return sorted(name for name in names if name.partition(".")[0] in _ROOTS)


def _code(notebook: str | Path) -> str:
    """The code cells as one text."""
    cells = json.loads(Path(notebook).read_bytes())["cells"]  # nbformat takes two seconds to import
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def source_files(source: str, entries: Iterable[Path] = ()) -> list[Path]:
    """`entries`, and the project's files that these and Python text reach by imports, sorted."""
    found, left = set(), {*_named(source), *entries}
    while left:
        path = left.pop()
        found.add(path)
        if path != _FACE:
            left |= _named(path.read_text(encoding="utf-8")) - found
    return sorted(found)


@cache
def _named(source: str) -> frozenset[Path]:
    return frozenset(path for name in _names(source) for path in _files(name))


def _names(source: str) -> set[str]:
    """What Python text imports, or names as a module of the project."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and _MODULE.fullmatch(str(node.value)):
            names.add(str(node.value))
    return names


def _files(module: str) -> list[Path]:
    """The file of a module and the `__init__` of each package above it; none for a module that is
    not the project's."""
    package, *parts = module.split(".")
    if package not in _ROOTS:
        return []
    places = accumulate(parts, Path.joinpath, initial=_ROOTS[package])
    files = (file for one in places for file in (one.with_suffix(".py"), one / "__init__.py"))
    return [file for file in files if file.is_file()]
