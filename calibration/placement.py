"""Decide which convolutions become INT8 and which activations get a scale.

Rules (numbers as in `calibration.lint`, where each is checked on the result):

    P1  the input and the weight of an INT8 convolution, and the tensor that float heads read
    P2  a residual Add: both inputs, or the identity branch alone ('identity')
    P3  one pair a tensor, for all its readers but those of P4
    P4  float stay: heads, squeeze-and-excitation and whatever follows a global pooling, and the
        readers Softmax, LayerNormalization, Erf, Sigmoid, HardSigmoid
    P5  small and grouped convolutions only where TensorRT has an INT8 kernel
    P6  the inputs and the output of a Concat share one scale; so do both ends of MaxPool and Pad
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from calibration.onnx_graph import attribute_int, constants, consumers, find_input_chain, load_model
from calibration.onnx_graph import producers as producers_of
from edge_runtime.errors import BundleFormatError, ConfigError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "FLOAT_READERS",
    "RESIDUAL_PAIRS",
    "WEIGHTED_OPS",
    "QuantizationPlan",
    "int8_kernel_exists",
    "plan_quantization",
    "pooled_tensors",
    "shortcut_of",
]

WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: What may stand at the two inputs of a residual Add.
RESIDUAL_PAIRS = ("both", "identity")
#: Operators that read the float tensor even where a pair follows it.
FLOAT_READERS = ("Erf", "Gelu", "HardSigmoid", "LayerNormalization", "Sigmoid", "Softmax")
_KEEP_VALUES = ("Clip", "Concat", "MaxPool", "Pad", "Relu", "Reshape", "Transpose")
_SAME_SCALE = ("MaxPool", "Pad")
_POOLING = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """What will be quantised.

    Attributes:
        input_tensor: the tensor holding (p - 128) * input_step.
        input_step: its scale; 1 for edge-screen's students.
        quantizes_input: whether it gets a pair (a convolution that reads it is INT8).
        observed: activations whose ranges must be observed, in graph order.
        shared: sets of observed activations that get the largest of their ranges.
        conv_names: convolutions that become INT8.
        float_nodes: nodes with weights that stay float.
    """

    input_tensor: str
    input_step: float
    quantizes_input: bool
    observed: tuple[str, ...]
    shared: tuple[tuple[str, ...], ...]
    conv_names: tuple[str, ...]
    float_nodes: tuple[str, ...]


def plan_quantization(
    model_bytes: bytes, *, excluded: Collection[str] = (), residual_pairs: str = "both"
) -> QuantizationPlan:
    """Choose what to quantise.

    Args:
        model_bytes: the FP32 model as export wrote it.
        excluded: names of Conv, Add and Concat nodes that stay float.
        residual_pairs: one of `RESIDUAL_PAIRS`. 'both' makes every convolution of a residual
            network an integer kernel of ONNX Runtime; 'identity' lets TensorRT fuse the Add into
            the convolution before it, and leaves that convolution float on a CPU.

    Raises:
        BundleFormatError: BatchNormalization is left in the graph, a node has no name, the
            input is not (p - 128), or no convolution can be quantised.
        ConfigError: `residual_pairs` is another word, or an excluded node does not exist.
    """
    if residual_pairs not in RESIDUAL_PAIRS:
        raise ConfigError(
            f"residual_pairs is '{residual_pairs}'; use one of {', '.join(RESIDUAL_PAIRS)}"
        )
    graph = load_model(model_bytes).graph
    _check_graph(graph, excluded)
    chain, step = find_input_chain(graph)
    layout = _Layout(graph, frozenset(excluded))
    tensors = layout.tensors(residual_pairs)
    start = chain[-1].output[0]
    made = [name for node in graph.node for name in node.output]
    names = {conv.name for conv in layout.convs}
    weighted = [node.name for node in graph.node if node.op_type in WEIGHTED_OPS]
    return QuantizationPlan(
        input_tensor=start,
        input_step=step,
        quantizes_input=start in tensors,
        observed=tuple(name for name in made if name in tensors and name != start),
        shared=layout.shared(tensors - {start}, made),
        conv_names=tuple(conv.name for conv in layout.convs),
        float_nodes=tuple(name for name in weighted if name not in names),
    )


class _Layout:
    """One graph with the look-ups that the choice needs."""

    def __init__(self, graph: onnx.GraphProto, excluded: frozenset[str]) -> None:
        self.graph, self.excluded = graph, excluded
        self.values, self.readers = constants(graph), consumers(graph)
        self.made = producers_of(graph)
        self.convs = self._int8_convs()
        self.outputs = {name for conv in self.convs for name in conv.output}

    def _int8_convs(self) -> list[onnx.NodeProto]:
        """Convolutions that gain from INT8 and are not heads or gates; at least one.

        A head has no node with weights after it.
        """
        pooled = pooled_tensors(self.graph, self.values)
        convs = [n for n in self.graph.node if n.op_type == "Conv" and n.input[1] in self.values]
        chosen = [
            conv
            for index, conv in enumerate(convs)
            if self._feeds_weights(conv)
            and conv.input[0] not in pooled
            and int8_kernel_exists(conv, self.values[conv.input[1]], is_first=index == 0)
        ]
        if not chosen:
            raise BundleFormatError(
                "no convolution can be quantised; export a convolutional student"
            )
        return [conv for conv in chosen if conv.name not in self.excluded]

    def _feeds_weights(self, start: onnx.NodeProto) -> bool:
        """Whether a node with weights lies anywhere after `start`."""
        waiting, seen = list(start.output), set()
        while waiting:
            for node in self.readers.get(waiting.pop(), []):
                if node.op_type in WEIGHTED_OPS:
                    return True
                waiting += [name for name in node.output if name not in seen]
                seen.update(node.output)
        return False

    def tensors(self, residual_pairs: str) -> set[str]:
        """Every activation that gets a pair."""
        chosen = {conv.input[0] for conv in self.convs}
        for node in self.graph.node:
            if node.op_type == "Add" and self._is_int8_add(node):
                shortcut = shortcut_of(self.made, node)
                chosen |= {shortcut} if residual_pairs == "identity" else set(node.input)
            elif node.op_type in WEIGHTED_OPS and node.name not in {c.name for c in self.convs}:
                chosen |= self._head_input(node)
        for node in reversed(self.graph.node):
            if node.op_type == "Concat" and node.name not in self.excluded:
                inside = node.output[0] in chosen or all(self._from_int8(n) for n in node.input)
                chosen |= {*node.input, *node.output} if inside else set()
        return chosen - set(self.values)

    def _is_int8_add(self, node: onnx.NodeProto) -> bool:
        """A sum of two feature maps, at least one of which comes straight from integers."""
        if node.name in self.excluded or any(name in self.values for name in node.input):
            return False
        return any(self._from_int8(name) for name in node.input)

    def _head_input(self, node: onnx.NodeProto) -> set[str]:
        """The features that a float head reads: with a pair there, the last kernel is integer."""
        name = node.input[0]
        is_head = node.name not in self.excluded and not self._feeds_weights(node)
        return {name} if is_head and self._from_int8(name) else set()

    def _from_int8(self, name: str) -> bool:
        """Whether only rectifiers, pools and sums lie between it and an INT8 convolution."""
        while name not in self.outputs:
            node = self.made.get(name)
            if node is None:
                return False
            if node.op_type == "Add" and not any(n in self.values for n in node.input):
                return any(self._from_int8(n) for n in node.input)
            if node.op_type not in _KEEP_VALUES:
                return False
            if node.op_type == "Concat":
                return all(self._from_int8(n) for n in node.input)
            name = node.input[0]
        return True

    def shared(self, tensors: set[str], order: list[str]) -> tuple[tuple[str, ...], ...]:
        """Sets of at least two tensors that one scale must serve, in graph order."""
        root = {name: name for name in tensors}

        def find(name: str) -> str:
            while root[name] != name:
                name = root[name]
            return name

        for node in self.graph.node:
            joins = node.op_type == "Concat" and node.name not in self.excluded
            ends = (*node.input, *node.output) if joins else (*node.input[:1], *node.output[:1])
            if (joins or node.op_type in _SAME_SCALE) and set(ends) <= tensors:
                for name in ends:
                    root[find(name)] = find(ends[0])
        families: dict[str, list[str]] = {}
        for name in order:
            if name in tensors:
                families.setdefault(find(name), []).append(name)
        return tuple(tuple(family) for family in families.values() if len(family) > 1)


def int8_kernel_exists(conv: onnx.NodeProto, weight: NDArray[Any], *, is_first: bool) -> bool:
    """Rule P5: TensorRT has a fast INT8 kernel for this convolution."""
    if weight.ndim != 4:
        return False
    groups = attribute_int(conv, "group", 1)
    c_out, c_in, height, width = weight.shape
    c_in *= groups
    if groups > 1:
        return bool(c_out % 8 == 0 and min(height, width) >= 3)
    if min(c_in, c_out) >= 16:
        return True
    has_whole_vectors = c_in % 8 == 0 or c_out % 8 == 0
    return bool(has_whole_vectors and (is_first or max(c_in, c_out) >= 16) and height == width)


def pooled_tensors(graph: onnx.GraphProto, constant_names: Collection[str]) -> set[str]:
    """Tensors that follow a global pooling with nothing of the feature map joined to them."""
    pooled: set[str] = set()
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constant_names]
        if node.op_type in _POOLING or (inputs and all(name in pooled for name in inputs)):
            pooled |= set(node.output)
    return pooled


def shortcut_of(made: Mapping[str, onnx.NodeProto], add: onnx.NodeProto) -> str:
    """The input of a residual Add with the fewer convolutions behind it to the common ancestor.

    On a tie (two convolutions) the second input, where exporters put the shortcut.
    """
    depths = [_conv_depths(made, name) for name in add.input]
    common = set(depths[0]) & set(depths[1])
    if not common:
        return str(add.input[1])
    nearest = min(common, key=lambda name: depths[0][name] + depths[1][name])
    first, second = (depth[nearest] for depth in depths)
    return str(add.input[0] if first < second else add.input[1])


def _conv_depths(made: Mapping[str, onnx.NodeProto], start: str) -> dict[str, int]:
    """Every tensor behind `start` with the most convolutions on a way to it."""
    depths = {start: 0}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        node = made.get(name)
        if node is None:
            continue
        deeper = depths[name] + (node.op_type in WEIGHTED_OPS)
        for source in node.input:
            if source and deeper > depths.get(source, -1):
                depths[source] = deeper
                waiting.append(source)
    return depths


def _check_graph(graph: onnx.GraphProto, excluded: Iterable[str]) -> None:
    if any(node.op_type == "BatchNormalization" for node in graph.node):
        raise BundleFormatError(
            "the graph holds BatchNormalization; fold it into the convolutions when exporting"
        )
    names = [node.name for node in graph.node if node.op_type in WEIGHTED_OPS]
    if "" in names or len(set(names)) < len(names):
        raise BundleFormatError("nodes with weights need distinct names; export the bundle again")
    unknown = sorted(set(excluded) - {node.name for node in graph.node})
    if unknown:
        raise ConfigError(f"the graph has no node '{unknown[0]}' to leave in float")
