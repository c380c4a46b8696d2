"""The network definition and the ONNX parser that fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_tensorrt import graph
from fake_tensorrt.graph import Refusal, TensorFacts, version_tuple
from fake_tensorrt.sealing import Binding


class INetworkDefinition(Binding):
    """Holds the ONNX bytes that were parsed into it, and their inputs and outputs."""

    def __init__(self, builder: Any, flag_names: frozenset[str]) -> None:
        super().__init__()
        self._builder = builder
        self._flag_names = flag_names
        self._onnx: bytes | None = None
        self._tensors: list[TensorFacts] = []

    @property
    def _strongly_typed(self) -> bool:
        return version_tuple(self._fake.version)[0] >= 11 or "STRONGLY_TYPED" in self._flag_names

    @property
    def _explicit_batch(self) -> bool:
        return version_tuple(self._fake.version)[0] >= 10 or "EXPLICIT_BATCH" in self._flag_names

    @property
    def num_inputs(self) -> int:
        return sum(one.is_input for one in self._tensors)

    @property
    def num_outputs(self) -> int:
        return len(self._tensors) - self.num_inputs

    @property
    def num_layers(self) -> int:
        return 0 if self._onnx is None else len(graph.layer_names(self._onnx))

    @property
    def flags(self) -> int:
        members = self._fake.enum("NetworkDefinitionCreationFlag")
        return sum(1 << int(members[name]) for name in self._flag_names)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flag_names

    def get_input(self, index: int) -> Any:
        return self._tensor(index, is_input=True)

    def get_output(self, index: int) -> Any:
        return self._tensor(index, is_input=False)

    def _tensor(self, index: int, *, is_input: bool) -> Any:
        found = [one for one in self._tensors if one.is_input == is_input]
        return self._fake.new("ITensor", found[index]) if 0 <= index < len(found) else None


class OnnxParser(Binding):
    """`parse` returns False and collects errors; it never raises for a bad graph."""

    _constructible = True

    def __init__(self, network: Any, logger: Any) -> None:
        super().__init__()
        self._network = network
        self._logger = logger
        self._errors: list[Refusal] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        del path
        data = bytes(model)
        self._errors = self._refusals(data)
        for refusal in self._errors:
            self._fake.log(self._logger, "ERROR", refusal.desc)
        if self._errors:
            return False
        self._network._onnx = data
        self._network._tensors = graph.tensor_facts(graph.session(data))
        return True

    def parse_from_file(self, model: str) -> bool:
        return self.parse(Path(model).read_bytes())

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._fake.new("ParserError", self._errors[index])

    def clear_errors(self) -> None:
        self._errors = []

    def _refusals(self, data: bytes) -> list[Refusal]:
        if not self._network._explicit_batch:
            return [Refusal(desc="only networks with an explicit batch dimension are supported")]
        return graph.refusals(data, self._fake.version)
