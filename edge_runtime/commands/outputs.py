"""Refuse an output that would take the place of an input, of a bundle's file or of another output.

Two paths are the same file when they lead to the same device and inode (hard and symbolic links
included); where nothing lies yet, when they resolve to the same path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_runtime.errors import ConfigError

__all__ = ["refuse_overwriting"]

_Identity = tuple[int, int] | Path


def refuse_overwriting(
    outputs: Mapping[str, Path], inputs: Iterable[tuple[str, Path]], *, bundle_dir: Path
) -> None:
    """Compare everything that is to be written with everything that is read.

    Args:
        outputs: Option -> where it writes.
        inputs: What the operator calls a file, and the file; no name of a patient's picture.
        bundle_dir: The bundle; nothing is written into its folder, nor over a link to its files.

    Raises:
        ConfigError: An output is one of the inputs, lies in the bundle, or is another output.
    """
    if not outputs:
        return
    written: dict[_Identity, str] = {}
    for option, path in outputs.items():
        shown = f"{option} {path}"
        if _is_inside(path, bundle_dir):
            raise ConfigError(f"{shown} lies in the bundle {bundle_dir}; name another place")
        other = written.setdefault(_identity(path), shown)
        if other != shown:
            raise ConfigError(f"{other} and {shown} are the same file; name two files")
    bundle_files = ((f"{path.name} of the bundle", path) for path in bundle_dir.glob("*"))
    for what, path in (*bundle_files, *inputs):
        shown = written.get(_identity(path), "")
        if shown:
            raise ConfigError(f"{shown} would overwrite {what}; name another file")


def _identity(path: Path) -> _Identity:
    try:
        found = path.stat()
    except OSError:
        return _resolved(path)
    return (found.st_dev, found.st_ino)


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path`, or what it links to, is `folder` or lies in it."""
    resolved, parent = _resolved(path), _resolved(path.parent)
    wanted = _identity(folder)
    return any(
        _identity(one) == wanted for one in (resolved, *resolved.parents, parent, *parent.parents)
    )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()
