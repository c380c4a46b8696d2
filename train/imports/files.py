"""Finding a set's files: folders by their published names, photographs by their stem."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_runtime.errors import DataError
from train.imports.records import LeftOut

__all__ = ["Pictures", "first_folder", "relative"]

_SUFFIXES = (".bmp", ".gif", ".gz", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff")


def relative(root: Path, path: Path) -> str:
    """A path as messages and records name it."""
    return path.relative_to(root).as_posix()


def first_folder(root: Path, *names: str) -> Path:
    """The first of `names` that is a folder below `root`.

    Raises:
        DataError: none is.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"SRC has no folder {' or '.join(map(repr, names))}; see docs/importing.md")


class Pictures:
    """The pictures of one folder, asked for by stem; remembers which were never asked for."""

    def __init__(self, root: Path, folder: Path, *, suffixes: Sequence[str] = _SUFFIXES) -> None:
        """List the folder once.

        Raises:
            DataError: it is missing, or two of its pictures have one stem.
        """
        if not folder.is_dir():
            raise DataError(f"SRC has no folder '{relative(root, folder)}'; see docs/importing.md")
        self._root, self._folder = root, folder
        self._by_stem: dict[str, Path] = {}
        self._asked: set[str] = set()
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes and path.is_file():
                other = self._by_stem.setdefault(path.name.split(".")[0], path)
                if other is not path:
                    raise DataError(
                        f"'{relative(root, other)}' and '{path.name}' have one stem; remove one"
                    )

    @property
    def stems(self) -> list[str]:
        """All stems, sorted."""
        return sorted(self._by_stem)

    def path(self, stem: str) -> Path:
        """The picture of a stem that is in `stems`."""
        self._asked.add(stem)
        return self._by_stem[stem]

    def find(self, stem: str, where: str, problems: list[str]) -> Path | None:
        """The picture of a stem; a missing one is a problem."""
        if stem in self._by_stem:
            return self.path(stem)
        folder = relative(self._root, self._folder)
        problems.append(f"{where}: no picture '{stem}' in '{folder}'")
        return None

    def not_asked(self, reason: str = "no row names it") -> Iterable[LeftOut]:
        """Pictures that no record took."""
        for stem, path in self._by_stem.items():
            if stem not in self._asked:
                yield LeftOut(what=relative(self._root, path), reason=reason)
