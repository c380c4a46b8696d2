from __future__ import annotations

import base64
import hashlib
import json
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import BundleIntegrityError, BundleSignatureError, ConfigError
from edge_runtime.signing import (
    TRUSTED_KEYS_VARIABLE,
    TrustedKey,
    find_trusted_keys,
    generate_keypair,
    sign_bundle,
    verify_signature,
)

_MANIFEST = b'{"name": "tiny"}\n'


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(TRUSTED_KEYS_VARIABLE, raising=False)


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.json").write_bytes(_MANIFEST)
    return folder


@pytest.fixture
def keys(tmp_path):
    return generate_keypair(tmp_path / "keys")


def _trusted(keys):
    return find_trusted_keys(keys.public_key_path.parent.parent / "bundle", keys.public_key_path)


def test_sign_and_verify(bundle, keys):
    key_id = sign_bundle(bundle, keys.private_key_path)
    signature = (bundle / "bundle.sig").read_bytes()
    assert verify_signature(_MANIFEST, signature, _trusted(keys)) == key_id == keys.key_id
    content = json.loads(signature)
    assert sorted(content) == ["algorithm", "key_id", "signature"]
    assert sorted(p.name for p in bundle.iterdir()) == ["bundle.json", "bundle.sig"]


def test_key_files_are_standard_and_private(keys):
    private = serialization.load_pem_private_key(keys.private_key_path.read_bytes(), None)
    public = serialization.load_pem_public_key(keys.public_key_path.read_bytes())
    raw = public.public_bytes_raw()
    assert raw == private.public_key().public_bytes_raw()
    assert keys.key_id == hashlib.sha256(raw).hexdigest()[:16]
    assert stat.S_IMODE(keys.private_key_path.stat().st_mode) == 0o600
    assert keys.public_key_path.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize("existing", ["signing.key", "signing.pub"])
def test_keygen_never_overwrites(tmp_path, existing):
    (tmp_path / existing).write_bytes(b"mine")
    with pytest.raises(ConfigError, match="already exists"):
        generate_keypair(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_bytes() == b"mine"


def test_keygen_does_not_write_through_a_dangling_link(tmp_path):
    (tmp_path / "signing.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="already exists"):
        generate_keypair(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_changed_byte_of_the_manifest_is_refused(bundle, keys):
    sign_bundle(bundle, keys.private_key_path)
    signature = (bundle / "bundle.sig").read_bytes()
    for position in range(len(_MANIFEST)):
        changed = bytearray(_MANIFEST)
        changed[position] ^= 1
        with pytest.raises(BundleSignatureError, match=r"does not fit bundle\.json"):
            verify_signature(bytes(changed), signature, _trusted(keys))


def test_every_changed_bit_of_the_signature_file_is_refused(bundle, keys):
    sign_bundle(bundle, keys.private_key_path)
    signature = (bundle / "bundle.sig").read_bytes()
    trusted = _trusted(keys)
    for position in range(len(signature)):
        for bit in range(8):
            changed = bytearray(signature)
            changed[position] ^= 1 << bit
            with pytest.raises(BundleSignatureError):
                verify_signature(_MANIFEST, bytes(changed), trusted)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"algorithm": "ed25519", "key_id": "0", "signature": "AA=="}',
        b'{"algorithm": "ed25519", "key_id": 0, "signature": "\xc3\xa9"}',
        b" " * 20_000,
    ],
)
def test_malformed_signature_files_are_refused(keys, data):
    with pytest.raises(BundleSignatureError, match=r"bundle\.sig"):
        verify_signature(_MANIFEST, data, _trusted(keys))


def test_another_algorithm_word_is_refused(bundle, keys):
    sign_bundle(bundle, keys.private_key_path)
    content = (bundle / "bundle.sig").read_bytes().replace(b"ed25519", b"none")
    with pytest.raises(BundleSignatureError, match="not an Ed25519"):
        verify_signature(_MANIFEST, content, _trusted(keys))


def test_an_untrusted_key_is_named(bundle, keys, tmp_path):
    other = generate_keypair(tmp_path / "other")
    sign_bundle(bundle, other.private_key_path)
    signature = (bundle / "bundle.sig").read_bytes()
    with pytest.raises(BundleSignatureError) as caught:
        verify_signature(_MANIFEST, signature, _trusted(keys))
    assert other.key_id in str(caught.value)
    assert keys.key_id in str(caught.value)
    with pytest.raises(BundleSignatureError, match="trusted: none"):
        verify_signature(_MANIFEST, signature, [])


def test_a_trusted_id_on_a_foreign_signature_is_refused(keys):
    foreign = base64.b64encode(Ed25519PrivateKey.generate().sign(_MANIFEST)).decode()
    content = {"algorithm": "ed25519", "key_id": keys.key_id, "signature": foreign}
    forged = (json.dumps(content, indent=2) + "\n").encode()
    with pytest.raises(BundleSignatureError, match="does not fit"):
        verify_signature(_MANIFEST, forged, _trusted(keys))


def test_a_trusted_key_must_own_its_id():
    with pytest.raises(ConfigError, match="does not belong"):
        TrustedKey(key_id="0" * 16, public_key=bytes(32), source="test")


def test_trust_order_explicit_then_variable_then_beside(bundle, tmp_path, monkeypatch):
    pairs = {name: generate_keypair(tmp_path / name) for name in ("a", "b", "trusted_keys")}
    explicit = pairs["a"].public_key_path
    beside = find_trusted_keys(bundle, None)
    assert [key.key_id for key in beside] == [pairs["trusted_keys"].key_id]
    assert beside[0].source == "the folder trusted_keys beside the bundle"
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(tmp_path / "b"))
    from_variable = find_trusted_keys(bundle, None)
    assert [key.key_id for key in from_variable] == [pairs["b"].key_id]
    assert TRUSTED_KEYS_VARIABLE in from_variable[0].source
    given = find_trusted_keys(bundle, explicit)
    assert [key.key_id for key in given] == [pairs["a"].key_id]
    assert str(explicit) in given[0].source


def test_a_folder_of_keys_trusts_each(bundle, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    pairs = [generate_keypair(tmp_path / name) for name in "ab"]
    for index, pair in enumerate(pairs):
        (folder / f"{index}.pub").write_bytes(pair.public_key_path.read_bytes())
    (folder / "README.txt").write_text("not a key")
    found = find_trusted_keys(bundle, folder)
    assert [key.key_id for key in found] == [pair.key_id for pair in pairs]


def test_no_key_anywhere_is_an_error_with_a_remedy(bundle):
    with pytest.raises(BundleSignatureError, match="--trusted-keys"):
        find_trusted_keys(bundle, None)


def test_a_wrong_explicit_path_never_falls_back(bundle, tmp_path):
    generate_keypair(tmp_path / "trusted_keys")
    with pytest.raises(BundleSignatureError, match="not a readable public key"):
        find_trusted_keys(bundle, tmp_path / "absent.pub")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleSignatureError, match=r"no \*\.pub file"):
        find_trusted_keys(bundle, tmp_path / "empty")


def test_keys_inside_the_bundle_are_refused(bundle, tmp_path, monkeypatch):
    inside = generate_keypair(bundle / "trusted_keys")
    (tmp_path / "link").symlink_to(inside.public_key_path)
    for path in (bundle, bundle / "trusted_keys", inside.public_key_path, tmp_path / "link"):
        with pytest.raises(BundleSignatureError, match="cannot vouch for itself"):
            find_trusted_keys(bundle, path)
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(bundle))
    with pytest.raises(BundleSignatureError, match="cannot vouch for itself"):
        find_trusted_keys(bundle, None)


def test_a_trusted_keys_folder_that_links_into_the_bundle_is_refused(bundle, tmp_path):
    generate_keypair(bundle / "inner")
    (tmp_path / "trusted_keys").symlink_to(bundle / "inner")
    with pytest.raises(BundleSignatureError, match="cannot vouch for itself"):
        find_trusted_keys(bundle, None)


def test_other_kinds_of_keys_are_refused(bundle, tmp_path):
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "rsa.pub").write_bytes(public)
    (tmp_path / "rsa.key").write_bytes(private)
    with pytest.raises(BundleSignatureError, match="not an Ed25519 key"):
        find_trusted_keys(bundle, tmp_path / "rsa.pub")
    with pytest.raises(ConfigError, match="not an Ed25519 private key"):
        sign_bundle(bundle, tmp_path / "rsa.key")
    with pytest.raises(ConfigError, match="not a readable private key"):
        sign_bundle(bundle, tmp_path / "rsa.pub")
    with pytest.raises(ConfigError, match="not a readable private key"):
        sign_bundle(bundle, tmp_path / "absent.key")
    assert not (bundle / "bundle.sig").exists()


def test_signing_needs_a_manifest(tmp_path, keys):
    with pytest.raises(BundleIntegrityError, match=r"bundle\.json is missing"):
        sign_bundle(tmp_path, keys.private_key_path)


def test_a_private_key_that_others_can_read_is_warned_about(bundle, keys, caplog):
    keys.private_key_path.chmod(0o644)
    sign_bundle(bundle, keys.private_key_path)
    assert "can be read by other users" in caplog.text
