"""What runs inside the camera: image bytes in, refer / no refer / ungradable out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.errors import EdgeScreenError
    from edge_runtime.examination import Examination, EyeImage
    from edge_runtime.result import Decision, ScreeningResult
    from edge_runtime.screener import Screener

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Decision",
    "EdgeScreenError",
    "Examination",
    "EyeImage",
    "Screener",
    "ScreeningResult",
    "__version__",
]

# Resolved on first use: `import edge_runtime` must not load NumPy or OpenCV, because every
# command line (and every --help) starts here.
_HOME = {
    "Bundle": "edge_runtime.bundle",
    "Decision": "edge_runtime.result",
    "EdgeScreenError": "edge_runtime.errors",
    "Examination": "edge_runtime.examination",
    "EyeImage": "edge_runtime.examination",
    "Screener": "edge_runtime.screener",
    "ScreeningResult": "edge_runtime.result",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module the first time it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'edge_runtime' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names although most are not imported yet."""
    return sorted(set(globals()) | set(_HOME))
