"""The ONNX operators that a screening model may use: arithmetic on the picture and nothing else.

Left out on purpose: control flow (If, Loop, Scan: graphs inside graphs), random numbers (a decision
must repeat), strings, sequences and optionals, the decoding of images, operators that make much out
of nothing (ConstantOfShape, Expand, Range, Tile), and everything outside the standard domain. An
export that needs one more is refused at the workstation, not on the camera.
"""

from __future__ import annotations

__all__ = ["ALLOWED_OPERATORS"]

_ARITHMETIC = (
    "Abs Add And Ceil Clip Div Equal Erf Exp Floor Gemm Greater GreaterOrEqual Less LessOrEqual "
    "Log MatMul Max Mean Min Mul Neg Not Or Pow Reciprocal Round Sign Sqrt Sub Sum Where"
)
_ACTIVATIONS = (
    "Celu Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax "
    "Softplus Softsign Tanh"
)
_FILTERS = (
    "AveragePool BatchNormalization Conv ConvTranspose GlobalAveragePool GlobalMaxPool "
    "GroupNormalization InstanceNormalization LayerNormalization MaxPool"
)
_REDUCTIONS = "ArgMax ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare"
_SHAPES = (
    "Cast Concat Constant DepthToSpace Flatten Gather Identity Pad Reshape Resize Shape Slice "
    "SpaceToDepth Split Squeeze Transpose Unsqueeze"
)
_INT8 = "DequantizeLinear QuantizeLinear"

#: Names of operators of the standard domain.
ALLOWED_OPERATORS = frozenset(
    " ".join((_ARITHMETIC, _ACTIVATIONS, _FILTERS, _REDUCTIONS, _SHAPES, _INT8)).split()
)
