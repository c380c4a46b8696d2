"""Where the INT8 file of a backbone rounds, found on its trace.

A tensor is rounded once for all who read it: at the inputs of INT8 convolutions, at both inputs
of a residual sum, and at the map that the heads read. Each convolution takes its BatchNorm in.
The rules are those of INT8 calibration; that both round in the same places is tested on the
file itself. A concatenation is rounded behind it, not before, which is nearly the same.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from distill.qat.fake_quant import FakeQuant
from distill.qat.rounded_conv import RoundedConv
from edge_runtime.errors import ConfigError
from train.arrays import PIXEL_SCALE

__all__ = ["rounded_graph"]

# The file holds pixel - 128 exactly, with scale 1; the student sees (pixel - 128) / 64.
_INPUT_AMAX = 127.0 / PIXEL_SCALE
_SUMS = (operator.add, operator.iadd, torch.add)
_KEEP_VALUES = (nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.Identity, nn.Dropout)


class _Tracer(fx.Tracer):
    """Stops at BatchNorm, timm's with an activation too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def rounded_graph(backbone: nn.Module) -> tuple[fx.GraphModule, dict[str, nn.Module]]:
    """Trace a backbone and put rounding where its INT8 file has it.

    Returns:
        The network on the backbone's own parameters, and its roundings but the picture's by
        their names in the trace, in the order they are computed.

    Raises:
        ConfigError: it cannot be traced, or a layer has no INT8 form.
    """
    try:
        graph = _Tracer().trace(backbone)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ConfigError(
            f"the backbone cannot be traced ({error}); QAT needs a plain convolutional one"
        ) from error
    loose = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    if loose:
        raise ConfigError(
            f"'{loose[0]}' is a weight outside convolutions and norms; QAT cannot imitate its INT8 "
            "form, see `edge-screen quant-lint`"
        )
    layers = {n.target: backbone.get_submodule(str(n.target)) for n in _layers(graph)}
    _fold_norms(graph, layers)
    quantizers: dict[str, nn.Module] = {}
    for node in _quantized_tensors(graph, layers):
        amax = _INPUT_AMAX if node.op == "placeholder" else 1.0
        name = f"round_{node.name}"
        layers[name] = FakeQuant(amax)
        if node.op != "placeholder":
            quantizers[node.name] = layers[name]
        readers = list(node.users)
        with graph.inserting_after(node):
            rounded = graph.call_module(name, (node,))
        for reader in readers:
            reader.replace_input_with(node, rounded)
    _tell_convolutions(graph, layers)
    graph.lint()
    return fx.GraphModule({str(k): v for k, v in layers.items()}, graph), quantizers


def _layers(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module"]


def _fold_norms(graph: fx.Graph, layers: dict[Any, nn.Module]) -> None:
    """Every convolution takes in the BatchNorm that alone reads it; what follows that stays."""
    for node in _layers(graph):
        conv = layers[node.target]
        if not isinstance(conv, nn.Conv2d):
            continue
        readers = list(node.users)
        norm = layers.get(readers[0].target) if len(readers) == 1 else None
        if isinstance(norm, nn.BatchNorm2d):
            layers[readers[0].target] = _after_norm(norm)
        layers[node.target] = RoundedConv(
            conv,
            norm if isinstance(norm, nn.BatchNorm2d) else None,
            is_first=_origin(node.args[0], layers).op == "placeholder",
        )
    left = [name for name, layer in layers.items() if isinstance(layer, nn.BatchNorm2d)]
    if left:
        raise ConfigError(f"{left[0]} is not fed by a convolution alone; it cannot be folded")


def _tell_convolutions(graph: fx.Graph, layers: dict[Any, nn.Module]) -> None:
    """Which rounding each convolution reads: the bias counts in steps of its scale."""
    for node in _layers(graph):
        layer = layers[node.target]
        reads = layers.get(_origin(node.args[0], layers).target)
        if isinstance(layer, RoundedConv) and isinstance(reads, FakeQuant):
            layer.reads = reads


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What timm's BatchNorm does besides normalising: an activation, or nothing."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _quantized_tensors(graph: fx.Graph, layers: dict[Any, nn.Module]) -> list[fx.Node]:
    """Nodes whose value the INT8 file holds as integers, in the order they are computed."""
    chosen: set[fx.Node] = set()
    for node in graph.nodes:
        chosen |= {_origin(one, layers) for one in _rounded_inputs(node, layers)}
    return [node for node in graph.nodes if node in chosen]


def _rounded_inputs(node: fx.Node, layers: dict[Any, nn.Module]) -> tuple[Any, ...]:
    """The inputs of a node that the INT8 file rounds: of convolutions, sums and, last, heads."""
    if node.op == "call_module":
        layer = layers[node.target]
        return node.args[:1] if isinstance(layer, RoundedConv) and layer.rounded else ()
    if node.op == "output":
        return node.args[:1] if _from_int8(node.args[0], layers) else ()
    return node.args if _is_sum(node) and _from_int8(node, layers) else ()


def _is_sum(node: fx.Node) -> bool:
    """A sum of two maps."""
    is_add = node.op == "call_function" and node.target in _SUMS
    return is_add and all(isinstance(one, fx.Node) for one in node.args)


def _from_int8(node: Any, layers: dict[Any, nn.Module]) -> bool:
    """Whether only rectifiers, pools and sums lie between it and an INT8 convolution."""
    if _is_sum(node):
        return any(_from_int8(one, layers) for one in node.args)
    if node.op != "call_module":
        return False
    layer = layers[node.target]
    if isinstance(layer, RoundedConv):
        return layer.rounded
    return isinstance(layer, _KEEP_VALUES) and _from_int8(node.args[0], layers)


def _origin(node: Any, layers: dict[Any, nn.Module]) -> fx.Node:
    """The node whose value this is, behind layers that do nothing when the graph is exported."""
    while node.op == "call_module" and isinstance(layers[node.target], (nn.Identity, nn.Dropout)):
        node = node.args[0]
    assert isinstance(node, fx.Node)
    return node
