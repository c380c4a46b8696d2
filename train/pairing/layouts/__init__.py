"""Published paired sets by name: each module turns one layout on disk into a raw list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from train.pairing.layouts.common import LayoutOptions
from train.pairing.layouts.gamma import read_gamma
from train.pairing.layouts.mmc_amd import read_mmc_amd
from train.pairing.layouts.olives import read_olives
from train.pairing.layouts.topcon_mm import read_topcon_mm
from train.pairing.raw import RawList

__all__ = ["LAYOUTS", "LayoutOptions"]

LAYOUTS: dict[str, Callable[[Path, LayoutOptions], RawList]] = {
    "gamma": read_gamma,
    "mmc-amd": read_mmc_amd,
    "olives": read_olives,
    "topcon-mm": read_topcon_mm,
}
