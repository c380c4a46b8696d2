"""What lies in the engine cache, and how it is cleared; nothing is built or loaded here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.engines.trt_cache import TIMINGS, EngineCache, read_entry
from edge_runtime.engines.trt_sidecar import Sidecar
from edge_runtime.errors import EngineError

__all__ = ["Cleared", "ListedEngine", "clear_engines", "list_engines"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ListedEngine:
    """One plan in the cache.

    Attributes:
        path: The plan's file.
        num_bytes: Of the plan, 0 when it is missing.
        sidecar: What it is, None when the entry is not whole.
        problem: Why it would not be used, None when it is whole.
    """

    path: Path
    num_bytes: int
    sidecar: Sidecar | None
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """What was removed."""

    num_files: int
    num_bytes: int


def list_engines(cache_dir: Path) -> tuple[ListedEngine, ...]:
    """Return every plan of every bundle, whole or not; a cache that is not there has none."""
    found: list[ListedEngine] = []
    for folder in _bundle_folders(cache_dir):
        paths = {path.with_suffix(".plan") for path in folder.glob("[0-9a-f]*.*")}
        found.extend(_look_at(path) for path in sorted(paths))
    return tuple(found)


def clear_engines(cache_dir: Path, *, bundle_sha256: str | None) -> Cleared:
    """Remove the engines of one bundle, or of all and the timing caches with None.

    A build under way is waited for. Only files that the cache itself names are touched.

    Raises:
        ConfigError: The cache may be written to by others.
        EngineError: A file cannot be removed.
    """
    wanted = [one for one in _bundle_folders(cache_dir) if bundle_sha256 in (None, one.name)]
    num_files = num_bytes = 0
    for folder in wanted:
        cache = EngineCache(cache_dir, folder.name)
        with cache.building(lambda _line: None):
            # Sidecars first: without it a plan is no entry, whenever this is interrupted.
            for path in (*folder.glob("*.json"), *folder.glob("*.plan")):
                num_bytes += _remove(path)
                num_files += 1
    if bundle_sha256 is None:
        for path in (cache_dir / TIMINGS).glob("*.cache"):
            num_bytes += _remove(path)
            num_files += 1
    return Cleared(num_files=num_files, num_bytes=num_bytes)


def _bundle_folders(cache_dir: Path) -> list[Path]:
    if not cache_dir.is_dir():
        return []
    return sorted(path for path in cache_dir.iterdir() if _SHA256.fullmatch(path.name))


def _look_at(path: Path) -> ListedEngine:
    num_bytes = path.lstat().st_size if path.exists() else 0
    try:
        entry = read_entry(path, path.stem)
    except EngineError as error:
        return ListedEngine(path=path, num_bytes=num_bytes, sidecar=None, problem=str(error))
    return ListedEngine(path=path, num_bytes=num_bytes, sidecar=entry.sidecar, problem=None)


def _remove(path: Path) -> int:
    try:
        size = path.lstat().st_size
        path.unlink()
    except OSError as error:
        raise EngineError(
            f"{path} cannot be removed ({error.strerror}); check the cache"
        ) from error
    return size
