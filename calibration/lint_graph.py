"""A finding of the linter, and one model with the look-ups that its rules need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from calibration.onnx_graph import constants, consumers, producers, read_model

if TYPE_CHECKING:
    import onnx

__all__ = ["PAIR", "Finding", "LintGraph", "external_tensors"]

PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken rule: its name, the node (or part of the model) and what is wrong."""

    rule: str
    node: str
    message: str


class LintGraph:
    """One model, read as it is: `onnx_graph.load_model` would repair what is to be judged."""

    def __init__(self, model_bytes: bytes) -> None:
        """Parse the model.

        Raises:
            BundleFormatError: the bytes are not an ONNX model.
        """
        self.model: onnx.ModelProto = read_model(model_bytes)
        self.graph = self.model.graph
        self.nodes: list[onnx.NodeProto] = list(self.graph.node)
        self.values = {} if external_tensors(self.model) else constants(self.graph)
        self.made, self.readers = producers(self.graph), consumers(self.graph)

    def value(self, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
        """Constant at an input of a node, or None."""
        return self.values.get(node.input[index]) if len(node.input) > index else None

    def source(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto | None:
        """The node that makes an input, or None."""
        return self.made.get(node.input[index]) if len(node.input) > index else None

    def is_dequantized(self, name: str) -> bool:
        """Whether a DequantizeLinear makes this tensor."""
        return name in self.made and self.made[name].op_type == "DequantizeLinear"

    def weight(self, node: onnx.NodeProto) -> NDArray[Any] | None:
        """The stored numbers of an INT8 weight (input 1), None where the weight is float."""
        pair = self.source(node, 1)
        if pair is None or pair.op_type != "DequantizeLinear":
            return None
        quantizer = self.source(pair, 0)
        return self.value(pair, 0) if quantizer is None else self.value(quantizer, 0)


def external_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of initialisers whose data lies in another file."""
    return [t.name for t in model.graph.initializer if t.data_location == 1 or t.external_data]
