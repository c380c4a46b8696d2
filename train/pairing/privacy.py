"""Pseudonyms: a patient id replaced by a keyed hash that only the key's holder can repeat."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from edge_runtime.errors import ConfigError

__all__ = ["MIN_KEY_BYTES", "Pseudonyms"]

MIN_KEY_BYTES = 32
_HEX_DIGITS = 32  # 128 bits: no two of a billion patients share a pseudonym


class Pseudonyms:
    """HMAC-SHA256 of patient ids under one secret key."""

    def __init__(self, key: bytes) -> None:
        """Take the key's bytes as they are, a line end included.

        Raises:
            ConfigError: The key is shorter than 32 bytes, which could be found by trying.
        """
        if len(key) < MIN_KEY_BYTES:
            raise ConfigError(
                f"the pseudonym key has {len(key)} bytes; give {MIN_KEY_BYTES} or more random ones"
            )
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Pseudonyms:
        """Read the key.

        Raises:
            ConfigError: The file cannot be read or its key is too short.
        """
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"cannot read the pseudonym key ({error.strerror}); name an existing file"
            ) from error

    def replace(self, patient_id: str) -> str:
        """The pseudonym of a patient: 32 hexadecimal digits."""
        digest = hmac.new(self._key, patient_id.encode(), hashlib.sha256)
        return digest.hexdigest()[:_HEX_DIGITS]
