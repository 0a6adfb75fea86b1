"""Versions that decide whether two runs can give the same bits."""

import platform
from importlib.metadata import PackageNotFoundError, version


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, by name; read without importing them."""
    return {"python": platform.python_version()} | {
        name: _version(name) for name in ("numpy", "torch", "fly64")
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
