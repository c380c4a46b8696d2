"""`edge-screen data import` from the outside: terms first, then what it says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from imports_factory import make_aptos, make_eyepacs, make_eyeq

from edge_runtime.errors import ConfigError
from edge_runtime.result import NOTICE
from train.data.cli import data
from train.imports.sets import SETS
from train.imports.vocabulary import LABELS


def _run(*arguments):
    return CliRunner().invoke(data, ["import", *map(str, arguments)])


def test_the_list_shows_every_set_with_its_terms_and_mapping():
    done = _run("--list")
    assert done.exit_code == 0
    for name, layout in SETS.items():
        assert f"\n{name}: " in done.output
        assert layout.facts.terms in done.output
        assert all(f"{said}  ->  {taken}" in done.output for said, taken in layout.facts.mapping)


def test_the_guide_names_every_set_and_label():
    guide = (Path(__file__).parent.parent / "docs" / "importing.md").read_text(encoding="utf-8")
    assert [name for name in SETS if f"| `{name}` |" not in guide] == []
    assert [label for label in LABELS if f"`{label}`" not in guide] == []


def test_nothing_is_written_before_the_terms_are_accepted(tmp_path):
    make_aptos(tmp_path / "in")
    done = _run("aptos-2019", tmp_path / "in", "--out", tmp_path / "out")
    assert isinstance(done.exception, ConfigError)
    assert "--accept-terms" in str(done.exception)
    assert SETS["aptos-2019"].facts.terms in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_import_for_people_and_for_machines(tmp_path):
    make_eyepacs(tmp_path / "in")
    table = make_eyeq(tmp_path / "eyeq.csv")
    common = ("eyepacs", tmp_path / "in", "--accept-terms", "--eyeq", table)
    done = _run(*common, "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "eyepacs: 6 photographs" in done.stdout
    assert done.stdout.rstrip().endswith(NOTICE)
    done = _run(*common, "--out", tmp_path / "b", "--seed", 3, "--link", "--json")
    record = json.loads(done.stdout)
    assert record["labels"]["quality_grade"] == {"known": 3, "above_0": 2}
    assert record["terms_accepted"] is True
    assert record["photographs"] == "hard links"
    assert record["notice"] == NOTICE


@pytest.mark.parametrize("arguments", [(), ("aptos-2019",), ("aptos-2019", "somewhere")])
def test_half_a_command_is_a_usage_error(arguments):
    done = _run(*arguments)
    assert done.exit_code == 2
    assert "NAME, SRC and --out" in done.output


def test_an_unknown_set_is_named(tmp_path):
    done = _run("kaggle", tmp_path, "--out", tmp_path / "out", "--accept-terms")
    assert "no importer 'kaggle'" in str(done.exception)
