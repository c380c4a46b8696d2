"""Workstation commands: found by name, imported only when run, missing packages explained."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_runtime.cli import main
from edge_runtime.commands import group as command_group

ROOT = Path(__file__).resolve().parent.parent
GROUP = command_group.ENTRY_POINT_GROUP
MODULE = """
import click
from edge_runtime.errors import DataError

@click.command(short_help="Does work.")
@click.option("--how", default="well")
def work(how):
    if how == "data":
        raise DataError("index.csv row 3: no such file")
    if how == "torch":
        import no_such_torch_package
    if how == "other_oserror":
        raise OSError(28, "No space left on device")
    if how == "bug":
        raise ModuleNotFoundError("no module", name="a_typo")
    if how == "extra":
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    click.echo(f"worked {how}")

not_a_command = 3
"""


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points `work`, `broken`, `absent`, `wrong`, and one that a device command hides."""
    (tmp_path / "fake_workstation.py").write_text(MODULE)
    (tmp_path / "fake_broken.py").write_text("import torch_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    targets = {
        "work": "fake_workstation:work",
        "broken": "fake_broken:command",
        "absent": "fake_workstation:gone",
        "wrong": "fake_workstation:not_a_command",
        "screen": "fake_workstation:work",
    }
    points = [EntryPoint(name, value, GROUP) for name, value in targets.items()]
    monkeypatch.setattr(
        command_group, "entry_points", lambda group: points if group == GROUP else []
    )
    yield
    sys.modules.pop("fake_workstation", None)


def run(*args: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, list(args))


def test_listing_names_imports_nothing() -> None:
    import click

    names = main.list_commands(click.Context(main))
    assert names == sorted(names)
    assert {"screen", "work", "broken"} <= set(names)
    assert "fake_workstation" not in sys.modules


def test_a_workstation_command_runs() -> None:
    result = run("work", "--how", "fast")
    assert (result.exit_code, result.output) == (0, "worked fast\n")


def test_help_lists_every_command_even_a_broken_one() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "Does work." in result.output
    assert "(not available here)" in result.output


def test_errors_of_the_tree_end_with_their_exit_code() -> None:
    result = run("work", "--how", "data")
    assert result.exit_code == 6
    assert result.stderr == "error: index.csv row 3: no such file\n"


def test_a_missing_extra_is_explained() -> None:
    result = run("work", "--how", "extra")
    assert result.exit_code == 1
    assert "pip install 'edge-screen[train]'" in result.stderr
    assert "'torch'" in result.stderr


def test_the_onnx_lint_needs_onnx_and_no_torch() -> None:
    assert "edge-screen[calibrate]" in command_group._missing_text("lint-onnx", "onnx")


def test_a_bug_is_not_disguised_as_a_missing_extra() -> None:
    assert isinstance(run("work", "--how", "bug").exception, ModuleNotFoundError)


@pytest.mark.parametrize("name", ["broken", "absent", "wrong"])
def test_a_command_that_cannot_be_loaded_says_so(name: str) -> None:
    for args in ((name,), (name, "--some", "option")):
        result = run(*args)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert name in result.stderr


def test_a_device_command_cannot_be_replaced_by_an_entry_point() -> None:
    import click

    command = main.get_command(click.Context(main), "screen")
    assert command is main.commands["screen"]


def test_an_unknown_command_is_a_usage_error() -> None:
    assert run("no-such-command").exit_code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_ends_with_a_message(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "edge_runtime", "screen", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the output cannot be written (No space left")
    assert len(ended.stderr.splitlines()) == 1


def test_another_failure_of_the_system_is_not_taken_for_the_output() -> None:
    assert isinstance(run("work", "--how", "other_oserror").exception, OSError)
