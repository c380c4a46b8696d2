"""Whose OCT goes with which CFP in a pretraining run, and which scans take part at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edge_runtime.errors import ConfigError

__all__ = ["oct_pairing", "scans_taking_part"]


def oct_pairing(num_eyes: int, patient_ids: Any, *, shuffled: bool, seed: int) -> torch.Tensor:
    """Whose OCT goes with each CFP: the same eye's, or (control) another patient's.

    Raises:
        ConfigError: no pairing with another patient was found.
    """
    own = np.arange(num_eyes)
    if not shuffled:
        return torch.from_numpy(own)
    rng = np.random.default_rng(seed)
    other = rng.permutation(num_eyes)
    for _ in range(100):
        same = patient_ids[other] == patient_ids
        if not same.any():
            return torch.from_numpy(other)
        other[same] = rng.integers(0, num_eyes, int(same.sum()))
    raise ConfigError(
        f"{num_eyes} eyes of {len(np.unique(patient_ids))} patients cannot each be given the OCT "
        "of another patient; use more patients"
    )


def scans_taking_part(
    present_nv: torch.Tensor | None, num_eyes: int, num_views: int, *, num_paired: int, seed: int
) -> torch.Tensor | None:
    """Which scans a run uses: those that exist, of at most `num_paired` eyes.

    Args:
        present_nv: (N, V) bool, the scans that exist; None = all of them.
        num_eyes: N.
        num_views: V.
        num_paired: eyes whose scans are used; 0 = all that have any.
        seed: draws them.

    Returns:
        (N, V) bool, or None where every scan takes part.

    Raises:
        ConfigError: more paired eyes are asked for than there are.
    """
    if num_paired == 0:
        return present_nv
    if present_nv is None:
        present_nv = torch.ones(num_eyes, num_views, dtype=torch.bool)
    paired = np.flatnonzero(present_nv.any(1).numpy())
    if num_paired > len(paired):
        raise ConfigError(
            f"{num_paired} paired eyes were asked for, {len(paired)} have an OCT; ask for fewer, "
            "or 0 for all"
        )
    chosen = torch.zeros(num_eyes, dtype=torch.bool)
    chosen[torch.from_numpy(np.random.default_rng(seed).permutation(paired)[:num_paired])] = True
    return present_nv & chosen[:, None]
