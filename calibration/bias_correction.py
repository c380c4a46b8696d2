"""Bias correction: give every INT8 convolution the mean output that it has in FP32.

    b[c] <- b[c] + E[y_fp32[c]] - E[y_int8[c]]      mean over images and places, channel c

Rounded weights and clipped activations shift the mean of a channel, and shifts add up from
layer to layer where noise averages out. Source: Nagel et al., Data-Free Quantization (2019),
section 4.2 and appendix D (empirical form): one convolution after the other in graph order, so
that each is measured behind inputs that are corrected already. A bias stays a whole number of
steps s_x s_w, so both INT8 files keep the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.channels import observe_channels
from calibration.onnx_graph import constants, load_model, producers, save_model
from calibration.run_models import INPUT_NAME, open_session

if TYPE_CHECKING:
    import onnx

__all__ = ["correct_biases"]


def correct_biases(
    portable: bytes,
    fp32: bytes,
    images_nhwc: NDArray[np.uint8],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Correct the biases of a model that `calibration.quantize` wrote from `fp32`.

    Convolutions without a bias are left as they are: a folded student has none.

    Args:
        portable: the INT8 model.
        fp32: the model it was made from; tensors have the same names.
        images_nhwc: (N, S, S, 3) uint8 of the train split.
        progress: called with (convolutions done, convolutions in all).
    """
    model = load_model(portable)
    convs = [n for n in _int8_convs(model.graph) if len(n.input) > 2]
    wanted = observe_channels(fp32, [conv.output[0] for conv in convs], images_nhwc)
    values, made = constants(model.graph), producers(model.graph)
    biases = {conv.input[2]: values[conv.input[2]] for conv in convs}
    measure = _MeanOutputs(model, biases, [conv.output[0] for conv in convs])
    for number, conv in enumerate(convs, start=1):
        steps = values[made[conv.input[0]].input[1]] * values[made[conv.input[1]].input[1]]
        shift = wanted[conv.output[0]].mean - measure(conv.output[0], biases, images_nhwc)
        whole = np.rint((biases[conv.input[2]] + shift) / steps).astype(np.float32)
        biases[conv.input[2]] = (whole * steps).astype(np.float32)
        if progress is not None:
            progress(number, len(convs))
    _store(model.graph, biases)
    return save_model(model)


class _MeanOutputs:
    """The INT8 model with its biases as inputs, so that one session serves all corrections."""

    def __init__(
        self,
        model: onnx.ModelProto,
        biases: dict[str, NDArray[np.float32]],
        tensors: list[str],
    ) -> None:
        import onnx
        from onnx import TensorProto, helper

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        kept = [tensor for tensor in copy.graph.initializer if tensor.name not in biases]
        del copy.graph.initializer[:]
        copy.graph.initializer.extend(kept)
        copy.graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, bias.shape)
            for name, bias in biases.items()
        )
        copy.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors
        )
        self._session = open_session(copy.SerializeToString())

    def __call__(
        self, tensor: str, biases: dict[str, NDArray[np.float32]], images_nhwc: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """(C,) mean of one convolution's output."""
        means = [
            self._session.run([tensor], {INPUT_NAME: image[None], **biases})[0].mean(
                axis=(0, 2, 3), dtype=np.float64
            )
            for image in images_nhwc
        ]
        return np.asarray(np.mean(means, axis=0))


def _int8_convs(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    made = producers(graph)
    return [
        node
        for node in graph.node
        if node.op_type == "Conv"
        and node.input[1] in made
        and made[node.input[1]].op_type == "DequantizeLinear"
    ]


def _store(graph: onnx.GraphProto, biases: dict[str, NDArray[np.float32]]) -> None:
    from onnx import numpy_helper

    for tensor in graph.initializer:
        if tensor.name in biases:
            tensor.CopyFrom(numpy_helper.from_array(biases[tensor.name], tensor.name))
