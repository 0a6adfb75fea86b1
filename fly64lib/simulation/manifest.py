"""What a phase has made: its manifest vouches for every file by its SHA-256.

A file that the manifest vouches for, made from the same inputs by the same versions, is not made
again. A run that was stopped goes on where it was."""

import hashlib
import json
import time
from pathlib import Path

from ptycho_torch.files import json_text, read_json, sha256_file, write_json
from ptycho_torch.versions import software_versions

MANIFEST = "run_manifest.json"


class Manifest:
    """A phase's `run_manifest.json`; hold the folder's lock while using it.

    `inputs` are stated in it; those named in `varying` (also inside other inputs) may change from
    run to run without a file becoming another one, such as the doses asked for."""

    def __init__(self, root: Path, phase: str, inputs: dict, varying: tuple[str, ...]) -> None:
        self.root, self.path, self._started = root, root / MANIFEST, time.perf_counter()
        versions = software_versions()

        def kept(part: dict) -> dict:
            return {name: value for name, value in part.items() if name not in varying}

        fixed = json.loads(json_text(inputs), object_hook=kept)
        key = sha256_json([fixed, versions])
        self.content = {"phase": phase, "inputs": inputs, "key": key, "versions": versions}
        earlier = read_json(self.path) if self.path.is_file() else {}
        self.earlier = earlier if earlier.get("key") == key else {}
        files = self.earlier.get("files", {})
        unchanged = intact(root, {name: row["sha256"] for name, row in files.items()})
        self.files = {name: files[name] for name in unchanged}

    def add(self, name: str, **row: object) -> None:
        """Vouch for a file that was just written."""
        self.files[name] = {"sha256": sha256_file(self.root / name), **row}
        self.write()

    def write(self, **more: object) -> dict:
        """Write the manifest, with further entries, and return what stands in it."""
        seconds = round(time.perf_counter() - self._started, 2)
        self.content |= {"files": self.files, "seconds": seconds, **more}
        write_json(self.path, self.content)
        return self.content


def intact(root: Path, sha256_of: dict[str, str]) -> dict[str, str]:
    """Those files under `root`, by name, that still have their SHA-256."""
    return {
        name: sha256
        for name, sha256 in sha256_of.items()
        if (root / name).is_file() and sha256_file(root / name) == sha256
    }


def sha256_json(value: object) -> str:
    """Hex SHA-256 of a value's JSON text, whatever the order of its keys."""
    return hashlib.sha256(json_text(value, sort_keys=True).encode()).hexdigest()
