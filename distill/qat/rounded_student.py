"""The student as its INT8 file computes it: rounding at the inputs of convolutions and sums.

The backbone is traced once; each convolution takes its BatchNorm in, and every tensor that the
portable INT8 file quantises (inputs of INT8 convolutions, both inputs of a residual sum) is
rounded there, once for all who read it. Heads stay float. Weights are those of the student
itself: training this trains the student.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from distill.qat.fake_quant import FakeQuant
from distill.qat.rounded_conv import RoundedConv
from distill.student import Student, StudentOutput
from edge_runtime.errors import ConfigError
from train.arrays import PIXEL_SCALE

__all__ = ["RoundedStudent"]

# The file holds pixel - 128 exactly, with scale 1; the student sees (pixel - 128) / 64.
_INPUT_AMAX = 127.0 / PIXEL_SCALE
_SUMS = (operator.add, operator.iadd, torch.add)


class RoundedStudent(nn.Module):
    """Same call and answer as `Student`.

    Attributes:
        student: whose weights these are.
        ranges: one rounding for each quantised tensor but the picture, by its name in the trace,
            in the order they are computed.
    """

    def __init__(self, student: Student) -> None:
        """Trace; ranges are 1 until they are measured.

        Raises:
            ConfigError: the backbone cannot be traced, or a layer has no INT8 form.
        """
        super().__init__()
        self.student = student
        traced, quantizers = _rounded_graph(student.backbone)
        self.ranges = nn.ModuleDict(quantizers)
        # In a tuple: its layers are the student's and are not to be registered twice.
        self._traced = (traced,)

    def forward(self, cfp_nchw: torch.Tensor) -> StudentOutput:
        """(N, 3, S, S) normalised float32 -> StudentOutput."""
        return self.student.read(self._traced[0](cfp_nchw))

    def range_values(self) -> dict[str, float]:
        """Tensor -> largest absolute value that INT8 holds."""
        return {name: float(one.get_buffer("amax")) for name, one in self.ranges.items()}

    @contextmanager
    def watching(self, watch: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
        """Inside, nothing of `ranges` is rounded: `watch` sees each (name, values) instead."""
        for name, one in self.ranges.items():
            assert isinstance(one, FakeQuant)
            one.watch = partial(watch, name)
        try:
            yield
        finally:
            for one in self.ranges.values():
                assert isinstance(one, FakeQuant)
                one.watch = None


class _Tracer(fx.Tracer):
    """Stops at BatchNorm, timm's with an activation too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _rounded_graph(backbone: nn.Module) -> tuple[fx.GraphModule, dict[str, nn.Module]]:
    try:
        graph = _Tracer().trace(backbone)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ConfigError(
            f"the backbone cannot be traced ({error}); QAT needs a plain convolutional one"
        ) from error
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
    graph.lint()
    return fx.GraphModule({str(k): v for k, v in layers.items()}, graph), quantizers


def _layers(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module"]


def _fold_norms(graph: fx.Graph, layers: dict[Any, nn.Module]) -> None:
    """Every convolution takes in the BatchNorm that alone reads it; what follows that stays."""
    folded = set()
    for node in _layers(graph):
        conv = layers[node.target]
        if not isinstance(conv, nn.Conv2d):
            continue
        readers = list(node.users)
        norm = layers.get(readers[0].target) if len(readers) == 1 else None
        if isinstance(norm, nn.BatchNorm2d):
            layers[readers[0].target] = _after_norm(norm)
            folded.add(readers[0].target)
        layers[node.target] = RoundedConv(conv, norm if isinstance(norm, nn.BatchNorm2d) else None)
    left = [name for name, layer in layers.items() if isinstance(layer, nn.BatchNorm2d)]
    if left:
        raise ConfigError(f"{left[0]} is not fed by a convolution alone; it cannot be folded")


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What timm's BatchNorm does besides normalising: an activation, or nothing."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _quantized_tensors(graph: fx.Graph, layers: dict[Any, nn.Module]) -> list[fx.Node]:
    """Nodes whose value the INT8 file holds as integers, in the order they are computed."""
    chosen = set()
    for node in graph.nodes:
        layer = layers.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, RoundedConv) and layer.rounded:
            chosen.add(_origin(node.args[0], layers))
        elif node.op == "call_function" and node.target in _SUMS:
            chosen |= {_origin(one, layers) for one in node.args if isinstance(one, fx.Node)}
    return [node for node in graph.nodes if node in chosen]


def _origin(node: Any, layers: dict[Any, nn.Module]) -> fx.Node:
    """The node whose value this is, behind layers that do nothing when the graph is exported."""
    while node.op == "call_module" and isinstance(layers[node.target], (nn.Identity, nn.Dropout)):
        node = node.args[0]
    assert isinstance(node, fx.Node)
    return node
