"""A report as a file that shows later who wrote it: JSON beside its Ed25519 signature.

    report.json        the exact bytes that are signed
    report.json.sig    key id and signature, in the form of bundle.sig

The key is the device's own, not one that signs bundles: put its public half where reports are
read, never into a folder of trusted bundle keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError
from edge_runtime.safe_files import read_file, write_file
from edge_runtime.signing import (
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    find_trusted_keys,
    sign_bytes,
    verify_signature,
)
from edge_runtime.strict_json import JsonValue, parse_json_object

__all__ = ["read_signed_report", "write_signed_report"]


def write_signed_report(path: Path, report: dict[str, Any], private_key_path: Path) -> str:
    """Write `path` and `path`.sig; return the id of the key.

    Raises:
        ConfigError: The key cannot be used, or the files cannot be written.
    """
    data = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    key_id, signature = sign_bytes(data, private_key_path)
    try:
        _signature_path(path).unlink(missing_ok=True)
        write_file(path, data)
        write_file(_signature_path(path), signature)
    except OSError as error:
        raise ConfigError(
            f"the report {path} cannot be written ({error.strerror}); name another file"
        ) from error
    return key_id


def read_signed_report(path: Path, trusted_keys: Path) -> tuple[dict[str, JsonValue], str]:
    """Return a report and the id of the key that signed it.

    Args:
        path: The JSON file; its signature lies beside it.
        trusted_keys: Public key of the device (`*.pub`), or a folder of them.

    Raises:
        BundleError: A file is missing, or the signature is not that of a trusted key over these
            bytes.
    """
    data = read_file(path, max_bytes=MAX_MANIFEST_BYTES)
    signature = read_file(_signature_path(path), max_bytes=MAX_SIGNATURE_BYTES)
    trusted = find_trusted_keys(path, trusted_keys)
    key_id = verify_signature(data, signature, trusted, name=path.name)
    return parse_json_object(data, name=path.name), key_id


def _signature_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sig")
