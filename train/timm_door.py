"""The one place through which timm is imported, also beside a CPU-only torch.

torchvision's wheel from the package registry is linked to CUDA. Beside a CPU build of
torch its compiled library cannot load, and importing torchvision (which timm does) stops
at "operator torchvision::nms does not exist", because torchvision registers fake kernels
for two operators that only that library defines. Declaring the two operators first makes
the import work. What then does not work are the operators themselves and torchvision's
own JPEG decoder; edge-screen uses neither. Where the library loads, nothing is declared
twice: the library is given the first chance.

No weights are ever fetched: models are created untrained, and the hub client that timm
brings is told to stay offline before it is first imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from edge_runtime.errors import ConfigError

__all__ = ["create_untrained", "import_timm"]

_LOGGER = logging.getLogger(__name__)
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# Operator definitions live only as long as the Library object that made them.
_declared: list[torch.library.Library] = []


def import_timm() -> ModuleType:
    """Import timm after making sure that torchvision can be imported beside this torch.

    Returns:
        The module `timm`. Repeated calls return the same module.

    Raises:
        ConfigError: timm is not installed.
    """
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(
            "timm is not installed; install it with: pip install 'edge-screen[train]'"
        )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _declare_missing_operators()
    return importlib.import_module("timm")


def create_untrained(name: str, **options: Any) -> torch.nn.Module:
    """Create a timm model with fresh weights; nothing is downloaded.

    Args:
        name: A timm architecture name such as `resnet10t`, without a hub prefix.
        **options: Passed to `timm.create_model`, e.g. `num_classes=0, in_chans=3`.

    Raises:
        ConfigError: `pretrained` is asked for, or the architecture is unknown.
    """
    if options.pop("pretrained", False):
        raise ConfigError(
            f"pretrained weights for '{name}' would have to be downloaded, which edge-screen "
            "never does; leave pretrained out"
        )
    timm = import_timm()
    if not timm.is_model(name):
        raise ConfigError(f"timm {timm.__version__} has no model '{name}'; see timm.list_models()")
    model = timm.create_model(name, pretrained=False, **options)
    assert isinstance(model, torch.nn.Module)
    return model


def _declare_missing_operators() -> None:
    """Declare torchvision's two hard-wired operators where its library cannot load."""
    if _declared or _library_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    missing = [name for name in _OPERATORS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        library.define(f"{name}{_SCHEMA}")  # type: ignore[no-untyped-call]
    _declared.append(library)
    _LOGGER.debug("declared torchvision operators %s: its compiled library did not load", missing)


def _library_loads() -> bool:
    """Whether torchvision's compiled operators can be loaded into this process."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    folder = Path(next(iter(spec.submodule_search_locations)))
    for library in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            return False
    return True
