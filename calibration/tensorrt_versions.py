"""Which ONNX file builds on which TensorRT, and why: operators, opset ceiling, typing.

    version  opsets   typing          precision of a bundle is made by
    8.6      to 17    weak            Q/DQ of model.int8.onnx + INT8 and FP16 flags
    10.3     to 20    weak or strong  the same; strong typing is complete from 10.12 only
    10.13    to 20    strong          model.int8fp16.onnx: every type as written in the file
    10.16    to 24    strong          the same
    11.4     to 25    strong only     the same; precision flags no longer exist

Sources: onnx-tensorrt docs/operators.md of 8.5 (opset 17), 10.0 (20) and 10.15 (24), its
changelog (LayerNormalization from 8.6, UINT8 only as network input or output from 8.5), and
the TensorRT 11 migration notes (25). 10.13 states no ceiling of its own here, so that of 10.0
is taken. This judges graphs; no TensorRT engine was built to write it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.onnx_graph import constants, read_model

if TYPE_CHECKING:
    import onnx

__all__ = ["VERSIONS", "BuildVerdict", "TensorRTVersion", "judge_builds", "unsupported_operators"]

#: Operators that TensorRT 8.6 parses for the types a student uses, and every later version too.
_EVERYWHERE = frozenset(
    [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "Div",
        "Erf",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "Identity",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
_FROM_10 = frozenset({"Gelu", "HardSwish"})


@dataclass(frozen=True, kw_only=True)
class TensorRTVersion:
    """What one version takes.

    Attributes:
        name: major.minor.
        max_opset: of the standard domain.
        weak_typing: has the INT8 and FP16 builder flags.
        strong_typing: builds networks as typed, for the whole operator set.
        operators: that its parser takes.
    """

    name: str
    max_opset: int
    weak_typing: bool
    strong_typing: bool
    operators: frozenset[str]


_LATER = _EVERYWHERE | _FROM_10
VERSIONS = (
    TensorRTVersion(
        name="8.6", max_opset=17, weak_typing=True, strong_typing=False, operators=_EVERYWHERE
    ),
    TensorRTVersion(
        name="10.3", max_opset=20, weak_typing=True, strong_typing=False, operators=_LATER
    ),
    TensorRTVersion(
        name="10.13", max_opset=20, weak_typing=True, strong_typing=True, operators=_LATER
    ),
    TensorRTVersion(
        name="10.16", max_opset=24, weak_typing=True, strong_typing=True, operators=_LATER
    ),
    TensorRTVersion(
        name="11.4", max_opset=25, weak_typing=False, strong_typing=True, operators=_LATER
    ),
)


@dataclass(frozen=True, kw_only=True)
class BuildVerdict:
    """Whether a version should build a file, how it would type it, and what speaks against it."""

    version: str
    builds: bool
    typing: str
    reasons: tuple[str, ...]


def unsupported_operators(kinds: Collection[str]) -> tuple[str, ...]:
    """Sorted operators of `kinds` that not every version in the window takes."""
    return tuple(sorted(set(kinds) - frozenset.intersection(*(v.operators for v in VERSIONS))))


def judge_builds(model_bytes: bytes) -> tuple[BuildVerdict, ...]:
    """Say for every version whether it builds this file.

    Raises:
        BundleFormatError: the bytes are not an ONNX model.
    """
    facts = _Facts(read_model(model_bytes))
    return tuple(facts.judge(version) for version in VERSIONS)


class _Facts:
    """What decides about building, taken from one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import TensorProto

        values = constants(model.graph)
        self.opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.kinds = Counter(
            f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            for node in model.graph.node
        )
        pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
        zeros = [values[n.input[2]] for n in pairs if len(n.input) > 2 and n.input[2] in values]
        self.is_int8 = bool(pairs)
        self.zero_types = {str(zero.dtype) for zero in zeros if zero.dtype != "int8"}
        self.has_half = any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)

    def judge(self, version: TensorRTVersion) -> BuildVerdict:
        reasons = []
        if self.opset > version.max_opset:
            reasons.append(f"opset {self.opset} is above its {version.max_opset}")
        foreign = sorted(set(self.kinds) - version.operators)
        if foreign:
            reasons.append(f"no importer for {', '.join(foreign)}")
        if self.zero_types:
            reasons.append(f"zero points of type {', '.join(sorted(self.zero_types))}, not int8")
        if self.has_half and not version.strong_typing:
            reasons.append("FP16 tensors want strong typing, complete from 10.12 only")
        return BuildVerdict(
            version=version.name,
            builds=not reasons,
            typing=self._typing(version),
            reasons=tuple(reasons),
        )

    def _typing(self, version: TensorRTVersion) -> str:
        if self.has_half and version.strong_typing:
            return "strong: INT8 where Q/DQ say so, FP16 elsewhere"
        if version.weak_typing:
            flags = "INT8 and FP16 flags" if self.is_int8 else "FP16 flag or none"
            return f"weak: {flags}"
        return "strong: layers without Q/DQ run in FP32"
