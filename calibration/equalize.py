"""Cross-layer equalisation: make the channels between two convolutions equally wide.

    y = W2 r(W1 x + b1)  =  (W2 S) r(S^-1 W1 x + S^-1 b1)      r = Relu, S = diag(s), s > 0
    s_i = sqrt(a_i / w_i) ,   a_i = max |activation of channel i|,   w_i = max |W2[:, i]|

Source: Nagel et al., Data-Free Quantization (2019), equations 8 to 11, with the range of the
activation in place of that of W1: our weights have a scale for each output channel, so W1 does
not suffer, while one scale serves all channels of the activation (the choice of SmoothQuant,
Xiao et al. 2022, equation 4 at 1/2). A narrow channel beside a wide one has few levels; after
this both have as many. s_i is rounded to a power of two: then no weight is rounded and the FP32
function is the same to the last bit (barring numbers below 2**-126).

Only Conv -> Relu -> Conv and Conv -> Conv with nothing else reading in between are touched:
Clip(0, 6) and HGNetV2's clamps do not commute with scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.channels import observe_channels
from calibration.onnx_graph import (
    add_constant,
    attribute_int,
    constants,
    consumers,
    load_model,
    save_model,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["equalize"]

# Dead channels would ask for endless factors; beyond 2**8 nothing is gained.
_MOST_DOUBLINGS = 8.0
_MAX_SWEEPS = 20


def equalize(model_bytes: bytes, images_nhwc: NDArray[np.uint8]) -> tuple[bytes, int]:
    """Equalise an FP32 model.

    Chains of convolutions are swept until no factor changes, 20 times at most.

    Args:
        model_bytes: as export wrote it.
        images_nhwc: (N, S, S, 3) uint8; the range of each channel is observed on them.

    Returns:
        The model, and how many pairs of convolutions were equalised.
    """
    model = load_model(model_bytes)
    graph = model.graph
    pairs = _pairs(graph)
    between = [second.input[0] for _, second in pairs]
    stats = observe_channels(model_bytes, between, images_nhwc)
    ranges = {name: stats[name].amax.copy() for name in between}
    weights = {
        name: value.astype(np.float32).copy()
        for name, value in constants(graph).items()
        if value.dtype == np.float32
    }
    for _ in range(_MAX_SWEEPS):
        changed = [_equalize_pair(first, second, weights, ranges) for first, second in pairs]
        if not any(changed):
            break
    touched = {node.name: node for pair in pairs for node in pair}
    for node in touched.values():
        for index, name in enumerate(node.input[1:], start=1):
            node.input[index] = add_constant(graph, f"{name}/equalized", weights[name])
    return save_model(model), len(pairs)


def _pairs(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Convolutions with only a Relu, or nothing, between them and nobody else reading."""
    values, readers = constants(graph), consumers(graph)
    outputs = {output.name for output in graph.output}
    shared = [n for node in graph.node if node.op_type == "Conv" for n in node.input[1:]]
    pairs = []
    for first in graph.node:
        if first.op_type != "Conv" or any(shared.count(name) > 1 for name in first.input[1:]):
            continue
        last = first
        while _sole_reader(last, readers, outputs, "Relu") is not None:
            last = readers[last.output[0]][0]
        second = _sole_reader(last, readers, outputs, "Conv")
        if second is None or any(shared.count(name) > 1 for name in second.input[1:]):
            continue
        if _can_scale(second, values) and first.input[1] in values:
            pairs.append((first, second))
    return pairs


def _sole_reader(
    node: onnx.NodeProto,
    readers: Mapping[str, list[onnx.NodeProto]],
    outputs: set[str],
    kind: str,
) -> onnx.NodeProto | None:
    after = readers.get(node.output[0], [])
    alone = len(after) == 1 and after[0].op_type == kind and node.output[0] not in outputs
    return after[0] if alone and after[0].input[0] == node.output[0] else None


def _can_scale(conv: onnx.NodeProto, values: Mapping[str, NDArray[Any]]) -> bool:
    """Dense, or depthwise with one filter a channel: input channel i meets known weights."""
    weight = values.get(conv.input[1])
    if weight is None:
        return False
    groups = attribute_int(conv, "group", 1)
    return groups == 1 or (groups == weight.shape[0] and weight.shape[1] == 1)


def _equalize_pair(
    first: onnx.NodeProto,
    second: onnx.NodeProto,
    weights: dict[str, NDArray[np.float32]],
    ranges: dict[str, NDArray[np.float64]],
) -> bool:
    """Move powers of two from one convolution to the next; False when all are 1."""
    w1, w2, reach = weights[first.input[1]], weights[second.input[1]], ranges[second.input[0]]
    is_depthwise = attribute_int(second, "group", 1) > 1
    axis = 0 if is_depthwise else 1
    after = np.abs(np.moveaxis(w2, axis, 0)).reshape(w1.shape[0], -1).max(axis=1)
    usable = (reach > 0) & (after > 0)
    if not usable.any():
        return False
    wanted = np.rint(0.5 * np.log2(reach[usable] / after[usable]))
    # The tensor as a whole keeps its range; a channel that no image woke keeps its own, sweep
    # after sweep: on other images it may speak.
    doublings = np.zeros(len(reach))
    doublings[usable] = wanted - np.rint(np.median(wanted))
    factor = np.exp2(np.clip(doublings, -_MOST_DOUBLINGS, _MOST_DOUBLINGS)).astype(np.float32)
    if (factor == 1).all():
        return False
    reach /= factor
    w1 /= factor.reshape(-1, *(1,) * (w1.ndim - 1))
    if len(first.input) > 2:
        weights[first.input[2]] /= factor
    shape = [1] * w2.ndim
    shape[axis] = -1
    w2 *= factor.reshape(shape)
    return True
