"""Errors a user can act on: every message says what came, what was expected and what to do."""


class PtychoError(Exception):
    """Base of all errors that a command prints without a traceback."""


class DataContractError(PtychoError, ValueError):
    """A file or an array does not hold what DATA-001 (docs/data_contract.md) asks for."""


class ConfigError(PtychoError, ValueError):
    """A parameter is unknown, of the wrong type or out of its range."""


class MissingDependencyError(PtychoError, ImportError):
    """An optional package is needed for what was asked and is not installed."""


class StorageError(PtychoError, OSError):
    """A file cannot be written: the disk is full, over quota or read-only. What was there before is
    still there."""
