"""A package of somebody else: a module and its dist-info folder, as pip would have installed it."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptycho_torch.registry import Registry


@contextmanager
def installed(folder: Path, registry: Registry, name: str, code: str) -> Iterator[None]:
    """Within the block the registry has `name` by an entry point: `Entry` of a module of `code`."""
    module = f"other_{name}"
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.group}]\n{name} = {module}:Entry\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    vars(registry).pop("_places", None)  # looked up anew
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(module, None)
        vars(registry).pop("_places", None)
