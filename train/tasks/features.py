"""What every task on a frozen encoder shares: pooled features, computed once an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from train.encoder import CfpEncoder
from train.probe import pooled_features
from train.tasks.data import TaskData

__all__ = ["FrozenFeatures", "frozen_features"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FrozenFeatures:
    """Mean tokens, standardised by the training eyes; labels were not looked at.

    Attributes:
        train: (N, D) float64, mean 0 and sd 1 in every feature that varies.
        val: (M, D), by the same shift and scale.
        test: (K, D), by the same shift and scale.
        mean: (D,) the shift.
        spread: (D,) the scale.
    """

    train: FloatArray
    val: FloatArray
    test: FloatArray
    mean: FloatArray
    spread: FloatArray


def frozen_features(encoder: CfpEncoder, data: TaskData) -> FrozenFeatures:
    """Run the encoder once over every eye.

    Raises:
        DataError: a feature is not finite.
    """
    train, val, test = (
        pooled_features(encoder, split.images_nhwc) for split in (data.train, data.val, data.test)
    )
    if not all(np.isfinite(part).all() for part in (train, val, test)):
        raise DataError("the encoder gives features that are not finite; train it again")
    mean, spread = train.mean(0), train.std(0) + 1e-6
    return FrozenFeatures(
        train=(train - mean) / spread,
        val=(val - mean) / spread,
        test=(test - mean) / spread,
        mean=mean,
        spread=spread,
    )
