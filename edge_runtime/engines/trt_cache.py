"""The engine cache on disk: an entry is whole and ours, or it is not used, and the reason is said.

    CACHE/<SHA-256 of the bundle>/<key>.plan       the serialised engine
                                  <key>.json       its sidecar, written last: without it no entry
    CACHE/timings/<hash>.cache                     TensorRT's timing cache, then its SHA-256

A plan is code for the GPU: deserialising one means trusting it. So an entry is loaded only from
the folder of the verified bundle, only from folders that nobody else may write to, and only when
its bytes have the hash that the sidecar states. Every file is written beside its place and renamed
(`safe_files.write_file`), the sidecar last and removed first: a kill at any moment leaves the old
entry, the new one, or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.engines.trt_device import DeviceIdentity
from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.engines.trt_sidecar import Sidecar
from edge_runtime.errors import BundleError, ConfigError, EngineError
from edge_runtime.safe_files import read_file, write_file
from edge_runtime.strict_json import canonical_sha256, dataclass_to_dict

__all__ = ["CacheEntry", "EngineCache", "cache_root", "read_entry"]

VARIABLE = "EDGE_SCREEN_ENGINE_CACHE"
TIMINGS = "timings"
_MAX_PLAN_BYTES = 1 << 30
_MAX_SIDECAR_BYTES = 4 << 20
_MAX_TIMINGS_BYTES = 256 << 20
_HASH_BYTES = 32
_WORK_PREFIX = ".build-"


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheEntry:
    """A whole entry: what it is, and the bytes whose hash was checked."""

    sidecar: Sidecar
    plan: bytes = field(repr=False)
    path: Path


def cache_root(named: Path | None) -> Path:
    """Return the cache's folder: named, else EDGE_SCREEN_ENGINE_CACHE, else below the home folder.

    A `~` stands for the home folder wherever the name comes from, so that whatever builds an
    engine and whatever loads it look in the same place.

    Raises:
        ConfigError: The folder depends on a home folder that this user does not have.
    """
    text = os.environ.get(VARIABLE)
    folder = named or Path(text or "~/.cache/edge-screen/engines")
    try:
        return folder.expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(
            f"the engine cache {folder} cannot be placed ({error}); name a folder with "
            f"--cache-dir or {VARIABLE}"
        ) from error


def read_entry(plan_path: Path, key: str) -> CacheEntry:
    """Read one entry whole.

    Raises:
        EngineError: A file is missing, damaged or belongs to another key; the reason is named.
    """
    try:
        sidecar_path = plan_path.with_suffix(".json")
        text = read_file(sidecar_path, max_bytes=_MAX_SIDECAR_BYTES)
        sidecar = Sidecar.from_bytes(text, name=sidecar_path.name)
        plan = read_file(plan_path, max_bytes=_MAX_PLAN_BYTES)
    except BundleError as error:
        raise EngineError(f"the cached engine {key[:16]}... is not whole: {error}") from error
    if (sidecar.key, sidecar.bundle_sha256) != (key, plan_path.parent.name):
        raise EngineError(
            f"the cached engine {key[:16]}... is foreign: its sidecar has another key or bundle"
        )
    if hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
        raise EngineError(f"the cached engine {key[:16]}... is damaged: its SHA-256 does not fit")
    return CacheEntry(sidecar=sidecar, plan=plan, path=plan_path)


class EngineCache:
    """The entries of one bundle."""

    def __init__(self, root: Path, bundle_sha256: str, *, may_make: bool = True) -> None:
        """Look at the folders, which only the owner may write to.

        Args:
            root: Of the cache of all bundles.
            bundle_sha256: The bundle.
            may_make: Make folders that are missing. False where engines are only loaded, because
                a camera's disk may be read-only; what is missing then holds no entry.

        Raises:
            ConfigError: A folder cannot be made, or others may write to it.
        """
        self.root = root
        self.folder = root / bundle_sha256
        for folder in (root, root / TIMINGS, self.folder):
            if may_make or os.path.lexists(folder):
                _make_private(folder)

    def plan_path(self, key: str) -> Path:
        """Where the plan of a key lies or would lie."""
        return self.folder / f"{key}.plan"

    def find(
        self, key: str, recipe: EngineRecipe, device: DeviceIdentity
    ) -> tuple[CacheEntry | None, tuple[str, ...]]:
        """Return the entry of a key, or None with the reasons why nothing here can be used."""
        path = self.plan_path(key)
        if not path.with_suffix(".json").exists():
            unfinished = ("a build was interrupted: its plan is not used",) if path.exists() else ()
            return None, (*unfinished, *self._stale(recipe))
        try:
            entry = read_entry(path, key)
        except EngineError as error:
            return None, (f"{error}; it will not be used",)
        found = entry.sidecar
        if (found.recipe, found.device) != (recipe, device):
            return None, (f"the cached engine {key[:16]}... is foreign: it will not be used",)
        return entry, ()

    def store(self, sidecar: Sidecar, plan: bytes) -> Path:
        """Write an entry, replacing one of the same key.

        Raises:
            EngineError: The folder cannot be written; no half entry is left.
        """
        path = self.plan_path(sidecar.key)
        try:
            path.with_suffix(".json").unlink(missing_ok=True)
            write_file(path, plan, mode=0o600)
            write_file(path.with_suffix(".json"), sidecar.to_bytes(), mode=0o600)
        except OSError as error:
            raise EngineError(
                f"the engine cannot be kept in {self.folder} ({error.strerror or error}); free "
                "space there or name another folder with --cache-dir"
            ) from error
        return path

    def timings(self, version: str, device: DeviceIdentity) -> bytes:
        """Return the kept timing cache, or nothing where there is none that is whole."""
        path = self._timings_path(version, device)
        if not path.exists():
            return b""
        try:
            data = read_file(path, max_bytes=_MAX_TIMINGS_BYTES)
        except BundleError:
            return b""  # only speed is lost; the next build writes it anew
        timings, digest = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
        return timings if hashlib.sha256(timings).digest() == digest else b""

    def store_timings(self, version: str, device: DeviceIdentity, timings: bytes) -> None:
        """Keep a timing cache.

        Raises:
            EngineError: The folder cannot be written.
        """
        data = timings + hashlib.sha256(timings).digest()
        folder = self.root / TIMINGS
        try:
            with _locked(folder / ".lock", lambda _line: None):
                for path in folder.glob(".*.cache.*"):  # a killed build left it
                    path.unlink(missing_ok=True)
                write_file(self._timings_path(version, device), data, mode=0o600)
        except OSError as error:
            raise EngineError(f"the timing cache cannot be kept ({error})") from error

    @contextlib.contextmanager
    def building(self, tell: Callable[[str], None]) -> Iterator[Path]:
        """Be the only builder of this bundle; yields an empty private folder for the work.

        Raises:
            EngineError: The folder cannot be written.
        """
        with _locked(self.folder / ".lock", tell):
            self._sweep()
            with _work_folder(self.folder) as work_dir:
                yield work_dir

    def _sweep(self) -> None:
        """Remove what killed builds have left: work folders and unfinished files."""
        try:
            for path in self.folder.glob(".*"):
                if path.name.startswith(_WORK_PREFIX):
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name != ".lock":
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(f"{self.folder} cannot be swept ({error}); check it") from error

    def _stale(self, recipe: EngineRecipe) -> tuple[str, ...]:
        """Name the entries of this precision that were made for something else."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                text = read_file(path, max_bytes=_MAX_SIDECAR_BYTES)
                other = Sidecar.from_bytes(text, name=path.name)
            except BundleError:
                continue  # `engine list` names it; it has nothing to do with this key
            if other.recipe.precision == recipe.precision:
                found.append(_difference(other, recipe))
        return tuple(found)

    def _timings_path(self, version: str, device: DeviceIdentity) -> Path:
        name = canonical_sha256({"version": version, "device": dataclass_to_dict(device)})
        return self.root / TIMINGS / f"{name}.cache"


def _difference(other: Sidecar, recipe: EngineRecipe) -> str:
    made_for = f"TensorRT {other.recipe.tensorrt_version} on {other.device.name}"
    fields = [
        name for name, value in recipe.to_dict().items() if other.recipe.to_dict()[name] != value
    ]
    reason = f"differs in {', '.join(fields)}" if fields else "was built on another device"
    return f"an engine for {made_for} is there and is not used: it {reason}"


def _make_private(folder: Path) -> None:
    """Make a folder for the owner alone; refuse one that others can write to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"the engine cache {folder} cannot be made ({error.strerror}); name another folder "
            "with --cache-dir"
        ) from error
    is_ours = status.st_uid in (os.geteuid(), 0)
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or not is_ours or others_write:
        raise ConfigError(
            f"the engine cache {folder} is a link, belongs to another user or can be written by "
            "others, so that an engine in it cannot be trusted; make it your own (chmod 700)"
        )


@contextlib.contextmanager
def _locked(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that the kernel releases with the process."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineError(f"{path} cannot be opened ({error}); check the cache folder") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process builds an engine of this bundle; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    try:
        work_dir = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=parent))
    except OSError as error:
        raise EngineError(f"{parent} cannot be written ({error}); free space there") from error
    try:
        yield work_dir
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
