"""What the fake knows of an ONNX graph: its tensors, what a parser refuses, and its answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

# First version -> highest opset that its parser takes (reference of the project, section 1).
_OPSET_CEILING = {(8, 0): 17, (9, 0): 19, (10, 0): 20, (10, 15): 24, (11, 0): 25}
_NEVER = {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
_FIRST_VERSION = {"LayerNormalization": (8, 6), "GroupNormalization": (8, 6), "Gelu": (10, 0)}
_TYPE_NAMES = {
    "tensor(float)": "FLOAT",
    "tensor(float16)": "HALF",
    "tensor(uint8)": "UINT8",
    "tensor(int8)": "INT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """One input or output; -1 stands for a dimension that is not fixed."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    is_input: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why the parser refuses a graph, and at which node."""

    desc: str
    node: int = -1
    node_name: str = ""
    node_operator: str = ""


def version_tuple(version: str) -> tuple[int, int]:
    """(major, minor)."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def refusals(data: bytes, version: str) -> list[Refusal]:
    """What the parser of this version has against the graph; empty when it takes it."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own class is not part of its interface
        return [Refusal(desc=f"Failed to parse the ONNX model: {error}")]
    if not model.graph.node:
        return [Refusal(desc="the ONNX model has no graph")]
    return [*_opset(model, version), *_nodes(model, version)]


def has_quantisation(data: bytes) -> bool:
    """Whether the graph has Q/DQ nodes."""
    model = onnx.load_model_from_string(data)
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def has_halves(data: bytes) -> bool:
    """Whether a tensor of the graph is float16."""
    graph = onnx.load_model_from_string(data).graph
    return any(one.data_type == onnx.TensorProto.FLOAT16 for one in graph.initializer)


def layer_names(data: bytes) -> list[str]:
    """One name a node, as a profile would show them."""
    nodes = onnx.load_model_from_string(data).graph.node
    return [node.name or f"{node.op_type}_{index}" for index, node in enumerate(nodes)]


def session(data: bytes) -> Any:
    """Open the graph in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def tensor_facts(opened: Any) -> list[TensorFacts]:
    """Inputs, then outputs, of an open session."""
    pairs = [(one, True) for one in opened.get_inputs()]
    pairs += [(one, False) for one in opened.get_outputs()]
    return [
        TensorFacts(
            name=one.name,
            shape=tuple(n if isinstance(n, int) else -1 for n in one.shape),
            type_name=_TYPE_NAMES[one.type],
            is_input=is_input,
        )
        for one, is_input in pairs
    ]


def numpy_type(type_name: str) -> np.dtype[Any]:
    """NumPy's type of a DataType member's name."""
    words = {"FLOAT": "float32", "HALF": "float16"}
    return np.dtype(words.get(type_name, type_name.lower()))


def _opset(model: Any, version: str) -> list[Refusal]:
    now = version_tuple(version)
    ceiling = max((since, opset) for since, opset in _OPSET_CEILING.items() if since <= now)[1]
    found = []
    for one in model.opset_import:
        if one.domain not in ("", "ai.onnx"):
            found.append(Refusal(desc=f"no importer for the operators of {one.domain}"))
        elif one.version > ceiling:
            found.append(Refusal(desc=f"opset {one.version} is above {ceiling}, the highest"))
    return found


def _nodes(model: Any, version: str) -> list[Refusal]:
    types = {one.name: one.data_type for one in model.graph.initializer}
    opset = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    found = []
    for index, node in enumerate(model.graph.node):
        reason = _reason(node, types, opset, version)
        if reason is not None:
            found.append(
                Refusal(desc=reason, node=index, node_name=node.name, node_operator=node.op_type)
            )
    return found


def _reason(node: Any, types: dict[str, int], opset: int, version: str) -> str | None:
    """Why a node is refused, or None."""
    if node.op_type in _NEVER or node.domain not in ("", "ai.onnx"):
        return f"no importer registered for op: {node.op_type}"
    since = _FIRST_VERSION.get(node.op_type)
    if since is not None and version_tuple(version) < since:
        return f"{node.op_type} needs TensorRT {since[0]}.{since[1]}"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _quantisation_reason(node, types, opset, version)
    return None


def _quantisation_reason(node: Any, types: dict[str, int], opset: int, version: str) -> str | None:
    half = types.get(node.input[1]) == onnx.TensorProto.FLOAT16
    if half and opset < 19:
        return "a float16 scale needs opset 19"
    if len(node.input) < 3:
        return "a zero point is needed" if version_tuple(version)[0] < 10 else None
    if types.get(node.input[2]) == onnx.TensorProto.UINT8 and version_tuple(version)[0] < 10:
        return "TensorRT only supports symmetric quantisation: the zero point is UINT8"
    return None
