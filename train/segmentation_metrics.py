"""How well a predicted mask fits the reference: Dice, IoU, HD95 and clDice, image by image.

Definitions follow Metrics Reloaded (Maier-Hein et al., Nature Methods 21, 2024) and its
reference implementation. Where a mask is empty, the same rule holds for all four:

    reference empty                    NaN: there is nothing to find; what was predicted
                                       all the same is `false_positive_share`
    prediction empty, reference not    the worst value: 0, and the image diagonal for HD95

Distances are in pixels of the masks given.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from train.skeleton import skeletonize

__all__ = ["cldice", "dice", "false_positive_share", "hd95", "iou"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def dice(predicted_nss: BoolArray, reference_nss: BoolArray) -> FloatArray:
    """2 |P and R| / (|P| + |R|) of each image.

    Args:
        predicted_nss: (N, H, W) bool, P.
        reference_nss: (N, H, W) bool, R.

    Returns:
        (N,) in 0..1; NaN where R is empty.
    """
    _require_pair(predicted_nss, reference_nss)
    both = _area(predicted_nss & reference_nss)
    return _ratio(2 * both, _area(predicted_nss) + _area(reference_nss), _area(reference_nss) > 0)


def iou(predicted_nss: BoolArray, reference_nss: BoolArray) -> FloatArray:
    """|P and R| / |P or R| of each image; arguments and result as for `dice`."""
    _require_pair(predicted_nss, reference_nss)
    both, either = _area(predicted_nss & reference_nss), _area(predicted_nss | reference_nss)
    return _ratio(both, either, _area(reference_nss) > 0)


def false_positive_share(
    predicted_nss: BoolArray, reference_nss: BoolArray, field_ss: BoolArray
) -> FloatArray:
    """Share of the field that was predicted in images whose reference is empty.

    Args:
        predicted_nss: (N, H, W) bool.
        reference_nss: (N, H, W) bool.
        field_ss: (H, W) bool, the field of view.

    Returns:
        (N,) in 0..1; NaN where the reference is not empty.
    """
    _require_pair(predicted_nss, reference_nss)
    wrong = _area(predicted_nss & field_ss)
    return _ratio(wrong, np.full(len(wrong), field_ss.sum()), _area(reference_nss) == 0)


def cldice(predicted_nss: BoolArray, reference_nss: BoolArray) -> FloatArray:
    """Centre-line Dice (Shit et al., CVPR 2021): are the lines found, and are they lines?

    With S the skeleton of a mask, the harmonic mean of the topology precision
    |S(P) and R| / |S(P)| and the topology sensitivity |S(R) and P| / |S(R)|.

    Args:
        predicted_nss: (N, H, W) bool, P.
        reference_nss: (N, H, W) bool, R.

    Returns:
        (N,) in 0..1; NaN where R is empty.
    """
    _require_pair(predicted_nss, reference_nss)
    lines_p, lines_r = skeletonize(predicted_nss), skeletonize(reference_nss)
    inside = np.maximum(_area(lines_p), 1)
    precision = _area(lines_p & reference_nss) / inside
    sensitivity = _area(lines_r & predicted_nss) / np.maximum(_area(lines_r), 1)
    product, total = 2 * precision * sensitivity, precision + sensitivity
    mean = np.divide(product, total, out=np.zeros_like(product), where=total > 0)
    return np.where(_area(reference_nss) > 0, mean, np.nan)


def hd95(predicted_nss: BoolArray, reference_nss: BoolArray) -> FloatArray:
    """95th percentile Hausdorff distance of each image, in pixels.

    The border of a mask is its pixels with a background pixel above, below, left or right
    (beyond the image is background). From every border pixel of one mask the distance to the
    nearest border pixel of the other; the 95th percentile of these in each direction,
    interpolated linearly; the larger of the two.

    Args:
        predicted_nss: (N, H, W) bool.
        reference_nss: (N, H, W) bool.

    Returns:
        (N,) of at least 0; NaN where the reference is empty, sqrt(H^2 + W^2) where only the
        prediction is.
    """
    _require_pair(predicted_nss, reference_nss)
    diagonal = float(np.hypot(*predicted_nss.shape[1:]))
    out = np.full(len(predicted_nss), np.nan)
    for i in np.flatnonzero(_area(reference_nss) > 0):
        out[i] = (
            diagonal if not predicted_nss[i].any() else _hd95(predicted_nss[i], reference_nss[i])
        )
    return out


def _hd95(predicted_ss: BoolArray, reference_ss: BoolArray) -> float:
    """HD95 of two masks that are not empty, inside the box that holds both."""
    rows = np.flatnonzero((predicted_ss | reference_ss).any(1))
    columns = np.flatnonzero((predicted_ss | reference_ss).any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    border_p, border_r = _border(predicted_ss[box]), _border(reference_ss[box])
    to_reference = _distance_to(border_r)[border_p > 0]
    to_predicted = _distance_to(border_p)[border_r > 0]
    return max(_percentile_95(to_reference), _percentile_95(to_predicted))


def _border(mask_ss: BoolArray) -> npt.NDArray[np.uint8]:
    image = mask_ss.astype(np.uint8)
    core = cv2.erode(image, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(image - core, np.uint8)


def _distance_to(border_ss: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Exact Euclidean distance of every pixel to the nearest border pixel."""
    away = np.ascontiguousarray(1 - border_ss)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _percentile_95(values: npt.NDArray[np.float32]) -> float:
    """`numpy.percentile(values, 95)` without its overhead, which would be most of the time."""
    position = 0.95 * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    ordered = np.partition(values, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    return low + (position - below) * (high - low)


def _area(masks_nss: BoolArray) -> npt.NDArray[np.int64]:
    return np.asarray(masks_nss.sum((1, 2)), np.int64)


def _ratio(
    part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64], defined: BoolArray
) -> FloatArray:
    """The quotient where it is defined, NaN elsewhere."""
    out = np.full(len(part), np.nan)
    np.divide(part, whole, out=out, where=defined)
    return out


def _require_pair(predicted_nss: BoolArray, reference_nss: BoolArray) -> None:
    for name, masks in (("predicted", predicted_nss), ("reference", reference_nss)):
        if masks.ndim != 3 or masks.dtype != np.bool_:
            raise ValueError(
                f"{name} masks are {masks.dtype} of shape {masks.shape}; give (N, H, W) bool"
            )
    if predicted_nss.shape != reference_nss.shape:
        raise ValueError(f"shapes differ: {predicted_nss.shape} and {reference_nss.shape}")
