"""The Jetson guide says what the code says: messages, settings, versions."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.engines.trt_table import window_for
from edge_runtime.errors import EngineError

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    section = GUIDE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def texts() -> list[str]:
    """Every string of the package, f-strings with their values left out."""
    found = []
    for path in sorted((ROOT / "edge_runtime").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values]
                found.append("".join(parts))
    return found


def test_every_message_of_the_table_is_one_of_ours() -> None:
    known = texts()
    names = {row[0] for row in rows("When something goes wrong")}
    assert len(names) > 15
    assert {name for name in names if not any(name in text for text in known)} == set()


def test_every_setting_is_in_the_table_with_its_default() -> None:
    table = {}
    for row in [row for row in rows("5. Screen") if row[0].startswith("`")]:
        names = re.findall(r"`(\w+)`", row[0])
        table.update(zip(names, row[1].split(", "), strict=False))
    for field in fields(TrtOptions):
        words = {True: "true", None: "none"}
        default = words.get(field.default) or str(field.default).removesuffix(".0")
        assert table[field.name].strip("`") == default, field.name


def test_every_jetpack_of_the_table_is_known_or_refused() -> None:
    versions = {row[0]: row[4] for row in rows("Which JetPack")}
    for jetpack, version in versions.items():
        if jetpack.startswith("5"):
            with pytest.raises(EngineError, match="JetPack 5 is not supported"):
                window_for(version)
        else:
            assert window_for(version)
    assert len(versions) == 6
