"""Which source files an import read: their SHA-256, summed up in one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import DataError

__all__ = ["SourceLedger"]


@dataclass(kw_only=True)
class SourceLedger:
    """Files of one set as they are read.

    Attributes:
        root: the set's folder; names are relative to it.
    """

    root: Path
    _files: dict[str, tuple[str, int]] = field(default_factory=dict)

    def read(self, path: Path) -> bytes:
        """A file's bytes, noted down.

        Raises:
            DataError: it cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"'{path.name}' cannot be read: {error.strerror}") from error
        self._files[self._name(path)] = (hashlib.sha256(data).hexdigest(), len(data))
        return data

    def sha256(self, path: Path) -> str:
        """Of a file that was read."""
        return self._files[self._name(path)][0]

    def summary(self) -> dict[str, object]:
        """Number and bytes of the files, and a SHA-256 over names and hashes in order."""
        digest = hashlib.sha256()
        for name, (sha256, _) in sorted(self._files.items()):
            digest.update(f"{sha256}  {name}\n".encode())
        return {
            "files": len(self._files),
            "bytes": sum(size for _, size in self._files.values()),
            "sha256": digest.hexdigest(),
        }

    def _name(self, path: Path) -> str:
        """Relative to the set; a table from elsewhere keeps its own name alone."""
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name
        )
