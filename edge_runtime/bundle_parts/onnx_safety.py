"""Refuse ONNX bytes that could reach outside themselves, or that can be read in two ways.

External data, operators that are not in `onnx_operators.py`, functions, tensors that claim more
than they hold, names and data given twice (of which one engine takes the first and another the
last). ONNX Runtime loads files named by a model that it was given as bytes (measured for
Constant.sparse_value). So the protobuf is walked here before any engine sees it: every
tensor of every graph, subgraph, function and training graph. The walker knows each field
of the messages on the way and refuses unknown ones, because a field that it does not
know could hold a tensor that it does not see.

Wire format: a message is a sequence of (varint tag = field number * 8 + wire type, value);
wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. Large payloads
(raw_data) are stepped over by their length. Field numbers follow onnx.proto of IR 8 to 13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge_runtime.bundle_parts.onnx_operators import ALLOWED_OPERATORS
from edge_runtime.errors import BundleFormatError

__all__ = ["ALLOWED_DOMAINS", "check_onnx"]

#: Operator domains that a graph may use; 'ai.onnx' is the long name of ''.
ALLOWED_DOMAINS = frozenset({"", "ai.onnx"})

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MAX_DEPTH = 100
_MAX_FIELDS = 5_000_000

# Message -> field number -> the message inside, or None for a field that is stepped over.
_FIELDS: Mapping[str, Mapping[int, str | None]] = {
    "model": {
        **dict.fromkeys((1, 2, 3, 4, 5, 6, 8, 14, 26)),
        7: "graph",
        20: "training_info",
        25: "function",
    },
    "training_info": {1: "graph", 2: "graph", 3: None, 4: None},
    "graph": {
        **dict.fromkeys((2, 10, 11, 12, 13, 14, 16)),
        1: "node",
        5: "tensor",
        15: "sparse_tensor",
    },
    "function": {
        **dict.fromkeys((1, 4, 5, 6, 8, 9, 10, 12, 13, 14)),
        7: "node",
        11: "attribute",
    },
    "node": {**dict.fromkeys((1, 2, 3, 4, 6, 7, 8, 9, 10)), 5: "attribute"},
    "attribute": {
        **dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20, 21)),
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse_tensor",
        23: "sparse_tensor",
    },
    "tensor": dict.fromkeys((*range(1, 15), 16)),
    "sparse_tensor": {1: "tensor", 2: "tensor", 3: None},
}

_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_STRINGS, _TENSOR_RAW_DATA = 1, 8, 6, 9
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_TENSOR_DATA = frozenset({4, 5, 7, 9, 10, 11})
_MIN_BITS = 4  # of a number in a tensor; as a varint, two of these still take a byte
_GRAPH_INITIALIZER, _MODEL_METADATA = 5, 14
_NODE_OUTPUT, _NODE_OPERATOR = 2, 4
_DOMAIN_FIELD = {"node": 7, "function": 10}
_SESSION_OPTIONS = b"ort_config"  # ONNX Runtime can take its session's options from the model


def check_onnx(data: bytes, *, name: str) -> None:
    """Walk an ONNX model and refuse whatever is not self-contained.

    Args:
        data: The bytes of the model.
        name: What the file is called in messages.

    Raises:
        BundleFormatError: External tensor data anywhere, an operator outside `ALLOWED_DOMAINS`
            or `ALLOWED_OPERATORS`, a function, a tensor that holds less than it claims, a name
            or data given twice, no graph, malformed protobuf, an unknown field, or nesting and
            field counts beyond the limits.
    """
    _Walk(data, name).run()


class _Walk:
    """One pass over the bytes of one model."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._num_fields = 0
        self._num_graphs = 0
        self._num_functions = 0
        self._operators: set[str] = set()

    def run(self) -> None:
        # ONNX Runtime reads such bytes as its own flatbuffer format, which this walk is blind to.
        if self._data[4:8] == b"ORTM":
            raise self._error("it is in the ORT format, not ONNX")
        self._message("model", 0, len(self._data), depth=0)
        if self._num_graphs != 1:
            raise self._error(f"it holds {self._num_graphs} main graphs instead of one")
        # Last, so that data hidden in a function or a branch are named as what they are.
        if self._num_functions:
            raise self._error(f"it defines {self._num_functions} functions of its own")
        foreign = sorted(self._operators - ALLOWED_OPERATORS)
        if foreign:
            raise self._error(f"the operator {foreign[0][:40]!r} is not allowed")

    def _message(
        self, kind: str, start: int, end: int, *, depth: int, names: set[str] | None = None
    ) -> None:
        """Check one message of `kind` that fills the bytes start..end; `names` of its graph."""
        if depth > _MAX_DEPTH:
            raise self._error(f"messages are nested deeper than {_MAX_DEPTH}")
        fields = _FIELDS[kind]
        if names is None or kind in ("graph", "function"):
            names = set()
        for number, wire, low, high in self._split(start, end):
            if number not in fields:
                raise self._error(f"unknown field {number} in a {kind} at byte {low}")
            inner = fields[number]
            if inner is not None:
                if wire != _BYTES:
                    raise self._error(f"field {number} of a {kind} is no message at byte {low}")
                self._num_graphs += kind == "model" and inner == "graph"
                self._num_functions += inner == "function"
                if kind == "graph" and number == _GRAPH_INITIALIZER:
                    self._check_initializer_name(low, high, names)
                self._message(inner, low, high, depth=depth + 1, names=names)
            elif kind == "tensor":
                self._check_tensor_field(number, wire, low)
            elif kind == "node" and number == _NODE_OPERATOR:
                self._operators.add(self._text("operator", wire, low, high))
            elif kind == "node" and number == _NODE_OUTPUT:
                self._check_new(self._text("output", wire, low, high), names)
            elif kind == "model" and number == _MODEL_METADATA:
                self._check_metadata(wire, low, high)
            elif number == _DOMAIN_FIELD.get(kind):
                self._check_domain(kind, wire, low, high)
        if kind == "tensor":
            self._check_tensor(start, end)

    def _check_tensor_field(self, number: int, wire: int, low: int) -> None:
        """Refuse any external_data entry and any data_location but DEFAULT (0)."""
        if number == _TENSOR_EXTERNAL_DATA:
            raise self._error(f"a tensor at byte {low} keeps its data in another file")
        if number == _TENSOR_DATA_LOCATION and (wire != _VARINT or self._varint(low)[0] != 0):
            raise self._error(f"a tensor at byte {low} says that its data lies elsewhere")

    def _check_tensor(self, start: int, end: int) -> None:
        """Refuse text, data in two places, and dimensions that the bytes cannot fill."""
        num_elements, data_fields = 1, []
        for number, wire, low, high in self._split(start, end):
            if number == _TENSOR_DIMS:
                for size in self._numbers(wire, low, high):
                    num_elements *= size
            elif number == _TENSOR_STRINGS:
                raise self._error(f"a tensor at byte {start} holds text")
            elif number in _TENSOR_DATA:
                data_fields.append(number)
        if len(set(data_fields)) > 1 or data_fields.count(_TENSOR_RAW_DATA) > 1:
            raise self._error(f"a tensor at byte {start} gives its data twice")
        if num_elements * _MIN_BITS > 8 * (end - start):
            raise self._error(
                f"a tensor at byte {start} claims {num_elements} numbers in {end - start} bytes"
            )

    def _numbers(self, wire: int, low: int, high: int) -> Iterator[int]:
        """Yield the numbers of a repeated field, packed or alone."""
        if wire not in (_VARINT, _BYTES):
            raise self._error(f"dimensions at byte {low} are no numbers")
        while low < high:
            value, low = self._varint(low)
            yield value

    def _check_initializer_name(self, start: int, end: int, names: set[str]) -> None:
        for number, wire, low, high in self._split(start, end):
            if number == _TENSOR_NAME:
                self._check_new(self._text("name", wire, low, high), names)

    def _check_new(self, name: str, names: set[str]) -> None:
        """Refuse a value that the same graph has already made; '' is an output left out."""
        if name and name in names:
            raise self._error(f"two values of one graph are called {name[:40]!r}")
        names.add(name)

    def _check_metadata(self, wire: int, low: int, high: int) -> None:
        """Refuse session options of ONNX Runtime in an entry of (1 key, 2 value)."""
        if wire != _BYTES:
            raise self._error(f"metadata at byte {low} are no message")
        for number, _, start, end in self._split(low, high):
            if number == 1 and self._data[start:end] == _SESSION_OPTIONS:
                raise self._error("its metadata set options of the session")

    def _check_domain(self, kind: str, wire: int, low: int, high: int) -> None:
        domain = self._text(f"domain of a {kind}", wire, low, high)
        if domain not in ALLOWED_DOMAINS:
            raise self._error(f"a {kind} of the operator domain {domain[:40]!r} is not allowed")

    def _text(self, what: str, wire: int, low: int, high: int) -> str:
        try:
            if wire == _BYTES:
                return self._data[low:high].decode("utf-8")
        except UnicodeDecodeError:
            pass
        raise self._error(f"the {what} at byte {low} is not text")

    def _split(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (field number, wire type, first byte, end byte) of the values in start..end."""
        position = start
        while position < end:
            self._num_fields += 1
            if self._num_fields > _MAX_FIELDS:
                raise self._error(f"it has more than {_MAX_FIELDS} fields")
            tag, low = self._varint(position)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >= 1 << 32:
                raise self._error(f"damaged protobuf: tag {tag} at byte {position}")
            low, position = self._extent(wire, low)
            if position > end:
                raise self._error(f"damaged protobuf: a value at byte {low} passes its message")
            yield number, wire, low, position

    def _extent(self, wire: int, position: int) -> tuple[int, int]:
        """Return where the value begins and ends that follows a tag."""
        if wire == _VARINT:
            return position, self._varint(position)[1]
        if wire == _BYTES:
            length, low = self._varint(position)
            return low, low + length
        if wire in (_EIGHT, _FOUR):
            return position, position + (8 if wire == _EIGHT else 4)
        raise self._error(f"damaged protobuf: wire type {wire} at byte {position}")

    def _varint(self, position: int) -> tuple[int, int]:
        """Return the base-128 number at `position` and the position after it."""
        if position < len(self._data) and self._data[position] < 0x80:  # nearly all: one byte
            return self._data[position], position + 1
        value, shift = 0, 0
        for index in range(position, min(position + 10, len(self._data))):
            byte = self._data[index]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, index + 1
            shift += 7
        raise self._error(f"damaged protobuf: a number at byte {position} does not end")

    def _error(self, reason: str) -> BundleFormatError:
        return BundleFormatError(
            f"{self._name} is refused: {reason}; export the model again as one "
            f"self-contained ONNX file of standard operators"
        )
