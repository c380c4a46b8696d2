"""Strict JSON: every key is expected, every value has its type, or the path of the fault is named.

`read_dataclass` fills a frozen dataclass from parsed JSON by its type hints:
str, bool, int, float, `X | None`, `tuple[X, ...]`, `tuple[float, float]`, nested
dataclasses, `Mapping[str, str]`, and `Mapping[str, JsonValue]` for free content.
The rules of a value (a range, a pattern) stay in `__post_init__` of the dataclass,
whose ConfigError begins with the field's name; the reader puts the path before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from edge_runtime.errors import BundleFormatError, ConfigError

__all__ = [
    "JsonValue",
    "canonical_json",
    "canonical_sha256",
    "dataclass_to_dict",
    "parse_json_object",
    "read_dataclass",
]

JsonValue = Any  # str, bool, int, finite float, None, lists and dicts of these

_T = TypeVar("_T")
_MAX_DEPTH = 32


def parse_json_object(data: bytes, *, name: str) -> dict[str, JsonValue]:
    """Parse UTF-8 JSON bytes that must hold one object.

    Args:
        data: The bytes of the file.
        name: What the file is called in messages.

    Raises:
        BundleFormatError: Not UTF-8, not JSON, not an object, a duplicate key, NaN or
            Infinity, or nested deeper than the parser allows.
    """

    def refuse_constant(word: str) -> NoReturn:
        raise BundleFormatError(
            f"{name}: {word} is not a JSON number; only finite numbers may be stored"
        )

    def unique_keys(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        seen: dict[str, JsonValue] = {}
        for key, item in pairs:
            if key in seen:
                raise BundleFormatError(f"{name}: key {key!r} appears more than once; keep one")
            seen[key] = item
        return seen

    try:
        parsed = json.loads(
            data.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=unique_keys
        )
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{name} is not valid JSON: {error}; write it again") from error
    if not isinstance(parsed, dict):
        raise BundleFormatError(f"{name} holds {_kind(parsed)}, not a JSON object; write it again")
    return parsed


def canonical_json(value: JsonValue) -> bytes:
    """Return the one byte form that is hashed: sorted keys, no spaces, ASCII, finite numbers."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def canonical_sha256(value: JsonValue) -> str:
    """Return the SHA-256 of `canonical_json(value)` as 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def dataclass_to_dict(value: Any) -> JsonValue:
    """Return nested dataclasses, tuples and mappings as plain dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: dataclass_to_dict(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: dataclass_to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dataclass_to_dict(item) for item in value]
    return value


def read_dataclass(
    cls: type[_T],
    value: JsonValue,
    *,
    path: str = "",
    given: Mapping[str, Any] = types.MappingProxyType({}),
) -> _T:
    """Fill the dataclass `cls` from a parsed JSON object.

    Args:
        cls: A dataclass whose type hints are of the kinds named above.
        value: The parsed JSON.
        path: Where `value` stands in the file, for messages; empty at the top.
        given: Fields that do not stand in the JSON, taken as they are: arrays, for example.

    Raises:
        BundleFormatError: A key is unknown or missing, or a value has the wrong type or
            breaks a rule; the message begins with the full path.
    """
    where = path or "the top level"
    if not isinstance(value, dict):
        raise BundleFormatError(f"{where} is {_kind(value)}, not an object; write the file again")
    hints = _type_hints(cls)  # type: ignore[arg-type]  # a class is hashable
    names = [f.name for f in dataclasses.fields(cls) if f.name not in given]  # type: ignore[arg-type]
    for key in value:
        if key not in names:
            raise BundleFormatError(f"{_join(path, key)} is an unknown key; remove it")
    for name in names:
        if name not in value:
            raise BundleFormatError(f"{_join(path, name)} is missing; nothing is defaulted, add it")
    arguments = {name: _read(hints[name], value[name], _join(path, name)) for name in names}
    try:
        return cls(**arguments, **given)
    except ConfigError as error:
        raise BundleFormatError(_join(path, str(error))) from error


@lru_cache(maxsize=256)
def _type_hints(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class, evaluated once: a manifest repeats its parts many times."""
    return typing.get_type_hints(cls)


def _read(hint: Any, value: JsonValue, path: str) -> Any:
    """Return `value` as the type `hint` says, or name `path`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(item for item in arguments if item is not type(None))
        return None if value is None else _read(inner, value, path)
    if dataclasses.is_dataclass(hint):
        return read_dataclass(hint, value, path=path)  # type: ignore[arg-type]
    if origin is tuple:
        return _read_tuple(arguments, value, path)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(arguments[1], value, path)
    return _read_scalar(hint, value, path)


def _read_tuple(arguments: tuple[Any, ...], value: JsonValue, path: str) -> tuple[Any, ...]:
    """Read a JSON list as `tuple[X, ...]` or as a tuple of fixed length."""
    if not isinstance(value, list):
        raise BundleFormatError(f"{path} is {_kind(value)}, not a list; write the file again")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise BundleFormatError(f"{path} has {len(value)} entries, not {len(arguments)}")
    pairs = enumerate(zip(arguments, value, strict=True))
    return tuple(_read(hint, item, f"{path}[{index}]") for index, (hint, item) in pairs)


def _read_mapping(hint: Any, value: JsonValue, path: str) -> dict[str, Any]:
    """Read a JSON object whose keys are free and whose values are of one type."""
    if not isinstance(value, dict):
        raise BundleFormatError(f"{path} is {_kind(value)}, not an object; write the file again")
    if hint is Any:
        return {key: _free(item, _join(path, key), 1) for key, item in value.items()}
    return {key: _read(hint, item, _join(path, key)) for key, item in value.items()}


def _free(value: JsonValue, path: str, depth: int) -> JsonValue:
    """Copy free JSON content, refusing what JSON cannot say."""
    if depth > _MAX_DEPTH:
        raise BundleFormatError(f"{path} is nested deeper than {_MAX_DEPTH} levels; flatten it")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise BundleFormatError(f"{path} has the key {key!r}, which is not text")
        return {key: _free(item, _join(path, key), depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_free(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, bool)):
        return value
    return _read_scalar(int if isinstance(value, int) else float, value, path)


def _read_scalar(hint: type, value: JsonValue, path: str) -> str | bool | int | float:
    """Read text, a boolean, an integer or a finite number; a boolean is no number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and is_number:
        return _finite(value, path)
    if hint is int and is_number and isinstance(value, int):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    raise BundleFormatError(f"{path} is {_kind(value)}, not {words[hint]}; write the file again")


def _finite(value: int | float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BundleFormatError(f"{path} is {str(value)[:40]}, not a finite number")
    return number


def _kind(value: Any) -> str:
    """Say what a value is, short enough for a message."""
    words = {dict: "an object", list: "a list", type(None): "null"}
    return words.get(type(value), f"{type(value).__name__} {str(value)[:40]!r}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
