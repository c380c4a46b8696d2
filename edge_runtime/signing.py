"""Who made a bundle: Ed25519 signatures over the exact bytes of bundle.json, and the keys we trust.

Private keys are PKCS#8 PEM files (mode 0600) that stay with the maker; public keys are
PEM files `*.pub` that the device trusts. A key's id is the first 16 hex digits of the
SHA-256 of its 32 raw bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import BundleError, BundleSignatureError, ConfigError
from edge_runtime.safe_files import create_file, read_file, write_file
from edge_runtime.strict_json import parse_json_object

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "MAX_MANIFEST_BYTES",
    "MAX_SIGNATURE_BYTES",
    "TRUSTED_KEYS_VARIABLE",
    "KeyPair",
    "TrustedKey",
    "find_trusted_keys",
    "generate_keypair",
    "sign_bundle",
    "sign_bytes",
    "verify_signature",
]

TRUSTED_KEYS_VARIABLE = "EDGE_SCREEN_TRUSTED_KEYS"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_SIGNATURE_BYTES = 16 * 1024
_MAX_KEY_BYTES = 64 * 1024

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """Where `generate_keypair` put its two files."""

    private_key_path: Path
    public_key_path: Path
    key_id: str


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """A public key (32 raw bytes) and the words that say where the trust comes from."""

    key_id: str
    public_key: bytes
    source: str

    def __post_init__(self) -> None:
        """Refuse an id that does not belong to the key."""
        if len(self.public_key) != 32 or self.key_id != _key_id(self.public_key):
            raise ConfigError(f"key id {self.key_id!r} does not belong to its public key")


def generate_keypair(folder: Path) -> KeyPair:
    """Write a new signing.key (mode 0600) and signing.pub into `folder`, which is made if absent.

    Raises:
        ConfigError: One of the files exists (nothing is overwritten), or the folder
            cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = folder / "signing.key", folder / "signing.pub"
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    shown = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    for path in (private, public):
        if os.path.lexists(path):
            raise ConfigError(f"{path.name} already exists in {folder}; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        create_file(private, secret, mode=0o600)
        create_file(public, shown, mode=0o644)
    except OSError as error:
        raise ConfigError(f"keys cannot be written to {folder}: {error.strerror}") from error
    key_id = _key_id(key.public_key().public_bytes_raw())
    return KeyPair(private_key_path=private, public_key_path=public, key_id=key_id)


def sign_bundle(folder: Path, private_key_path: Path) -> str:
    """Sign the exact bytes of `folder`/bundle.json into bundle.sig; return the key id.

    The files named in bundle.json are not read here: let `bundle.write_manifest` write
    their hashes last.

    Raises:
        BundleIntegrityError: bundle.json is missing.
        ConfigError: The private key is missing, unreadable or not Ed25519.
    """
    manifest = read_file(folder / "bundle.json", max_bytes=MAX_MANIFEST_BYTES)
    key_id, signature = sign_bytes(manifest, private_key_path)
    write_file(folder / "bundle.sig", signature)
    return key_id


def sign_bytes(data: bytes, private_key_path: Path) -> tuple[str, bytes]:
    """Return the key id and the bytes of a signature file over `data`.

    Raises:
        ConfigError: The private key is missing, unreadable or not Ed25519.
    """
    key = _load_private_key(private_key_path)
    key_id = _key_id(key.public_key().public_bytes_raw())
    return key_id, _signature_file(key_id, key.sign(data))


def verify_signature(
    manifest: bytes,
    signature: bytes,
    trusted: Sequence[TrustedKey],
    *,
    name: str = "bundle.json",
) -> str:
    """Check a signature file against what it signs; return the id of the key that signed.

    Args:
        manifest: The exact bytes of bundle.json, or of another signed file.
        signature: The exact bytes of bundle.sig, or of the other file's signature.
        trusted: The keys that may sign.
        name: Of the signed file, for messages.

    Raises:
        BundleSignatureError: Malformed, signed by a key that is not trusted, or not a
            signature of these bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key_id, raw_signature = _parse_signature_file(signature)
    key = next((key for key in trusted if key.key_id == key_id), None)
    if key is None:
        known = ", ".join(sorted({key.key_id for key in trusted})) or "none"
        raise BundleSignatureError(
            f"the signature of {name} was made by key {key_id}, which is not trusted (trusted: "
            f"{known}); "
            f"add the maker's .pub file to the trusted keys if you trust it"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(raw_signature, manifest)
    except InvalidSignature as error:
        raise BundleSignatureError(
            f"the signature by key {key_id} does not fit {name}; "
            f"one of the two was changed: copy both again"
        ) from error
    return key_id


def find_trusted_keys(folder: Path, explicit: Path | None) -> list[TrustedKey]:
    """Find the public keys to trust for the bundle in `folder`.

    The first that is given counts, and only that: `explicit` (a .pub file or a folder of
    them), the environment variable EDGE_SCREEN_TRUSTED_KEYS, the folder `trusted_keys`
    beside the bundle. Keys inside the bundle are refused: it cannot vouch for itself.

    Raises:
        BundleSignatureError: No key there, a key cannot be read, or it lies in the bundle.
    """
    bundle = folder.resolve()
    variable = os.environ.get(TRUSTED_KEYS_VARIABLE)
    beside = bundle.parent / "trusted_keys"
    if explicit is not None:
        return _read_keys(explicit, bundle, f"the trusted keys {explicit}")
    if variable:
        return _read_keys(Path(variable), bundle, f"{TRUSTED_KEYS_VARIABLE}={variable}")
    if beside.is_dir():
        return _read_keys(beside, bundle, "the folder trusted_keys beside the bundle")
    raise BundleSignatureError(
        f"no trusted keys: none given, {TRUSTED_KEYS_VARIABLE} is not set and there is no folder "
        f"trusted_keys beside the bundle; pass --trusted-keys with the maker's .pub file"
    )


def _read_keys(path: Path, bundle: Path, source: str) -> list[TrustedKey]:
    """Read one .pub file or every .pub file of a folder."""
    resolved = path.resolve()
    if resolved == bundle or bundle in resolved.parents:
        raise BundleSignatureError(
            f"{source} lie inside the bundle; a bundle cannot vouch for itself"
        )
    files = sorted(resolved.glob("*.pub")) if resolved.is_dir() else [resolved]
    if not files:
        raise BundleSignatureError(
            f"{source}: no *.pub file there; put the maker's public key there"
        )
    return [_read_key(file, source) for file in files]


def _read_key(file: Path, source: str) -> TrustedKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    remedy = "give a PEM file of an Ed25519 public key, as `edge-screen keygen` writes"
    try:
        key = load_pem_public_key(read_file(file, max_bytes=_MAX_KEY_BYTES))
    except (BundleError, ValueError, UnsupportedAlgorithm) as error:
        reason = f"{source}: {file.name} is not a readable public key"
        raise BundleSignatureError(f"{reason}; {remedy}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleSignatureError(f"{source}: {file.name} is not an Ed25519 key; {remedy}")
    raw = key.public_bytes_raw()
    return TrustedKey(key_id=_key_id(raw), public_key=raw, source=source)


def _load_private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    remedy = "give the signing.key that `edge-screen keygen` wrote"
    try:
        key = load_pem_private_key(read_file(path, max_bytes=_MAX_KEY_BYTES), password=None)
    except (BundleError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path.name} is not a readable private key; {remedy}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path.name} is not an Ed25519 private key; {remedy}")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        _LOGGER.warning("%s can be read by other users; set its mode to 0600", path.name)
    return key


def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def _signature_file(key_id: str, signature: bytes) -> bytes:
    """Return the one byte form of bundle.sig."""
    encoded = base64.b64encode(signature).decode("ascii")
    content = {"algorithm": "ed25519", "key_id": key_id, "signature": encoded}
    return (json.dumps(content, indent=2) + "\n").encode("ascii")


def _parse_signature_file(data: bytes) -> tuple[str, bytes]:
    """Return key id and raw signature; any other spelling of the same content is refused."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise BundleSignatureError(f"bundle.sig is larger than {MAX_SIGNATURE_BYTES} bytes")
    try:
        content = parse_json_object(data, name="bundle.sig")
        key_id = str(content["key_id"])
        signature = base64.b64decode(str(content["signature"]), validate=True)
    except (BundleError, KeyError, ValueError, binascii.Error) as error:
        raise BundleSignatureError(f"bundle.sig is malformed ({error}); sign again") from error
    if len(signature) != 64 or data != _signature_file(key_id, signature):
        raise BundleSignatureError("bundle.sig is not an Ed25519 signature file; sign again")
    return key_id, signature
