"""Cut a network into groups of layers that go to float, or stay INT8, together.

A cut lies where one single activation carries everything that comes after: between residual
blocks, between the dense blocks of HGNetV2, between plain convolutions. So a group never has
an Add or a Concat with one end inside and one outside, and reverting it to float leaves no
lonely pair behind. No name is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.onnx_graph import constants, consumers, load_model
from calibration.placement import QuantizationPlan

if TYPE_CHECKING:
    import onnx

__all__ = ["LayerGroup", "find_groups"]

_REVERTIBLE = ("Add", "Concat", "Conv")


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Neighbouring layers.

    Attributes:
        name: of the first convolution.
        nodes: names of its convolutions, Adds and Concats; `plan_quantization` takes them as
            `excluded`.
        num_convs: how many of them are INT8 convolutions.
    """

    name: str
    nodes: tuple[str, ...]
    num_convs: int


def find_groups(model_bytes: bytes, plan: QuantizationPlan) -> tuple[LayerGroup, ...]:
    """Groups with at least one INT8 convolution, in graph order; together they hold all."""
    graph = load_model(model_bytes).graph
    int8 = set(plan.conv_names)
    groups, nodes = [], []
    for node, is_cut in zip(graph.node, _cuts(graph), strict=True):
        if node.op_type in _REVERTIBLE and node.name:
            nodes.append(node.name)
        convs = [name for name in nodes if name in int8]
        if is_cut and convs:
            groups.append(LayerGroup(name=convs[0], nodes=tuple(nodes), num_convs=len(convs)))
            nodes = []
    return tuple(groups)


def _cuts(graph: onnx.GraphProto) -> list[bool]:
    """For every node, whether only its output is still to be read after it."""
    readers, values = consumers(graph), constants(graph)
    left = {name: len(nodes) for name, nodes in readers.items() if name not in values}
    alive: set[str] = set()
    cuts = []
    for node in graph.node:
        for name in node.input:
            if name in left:
                left[name] -= 1
                if left[name] == 0:
                    alive.discard(name)
        alive |= {name for name in node.output if left.get(name, 0) > 0}
        cuts.append(alive <= set(node.output))
    return cuts
