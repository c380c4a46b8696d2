"""The front page: its Python runs, its first screen holds, and it claims nothing unmeasured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bundle_factory import BuiltBundle, build_bundle
from fundus_factory import centred_fundus, jpeg_bytes

from edge_runtime.result import NOTICE

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAT = " ".join(README.split())
FIRST_SCREEN = "\n".join(README.splitlines()[:20])
MARKED = re.compile(r"<!-- demo:(\w+) -->\n(.*?)<!-- /demo:\1 -->", re.DOTALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """A bundle that finds every picture gradable and healthy."""
    folder = tmp_path_factory.mktemp("readme") / "bundle"
    return build_bundle(folder, threshold=1.0, gradability_threshold=0.0)


@pytest.fixture
def camera(built: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory as the vendor has it: bundle, trusted keys, two pictures."""
    (tmp_path / "bundle").symlink_to(built.folder)
    (tmp_path / "trusted_keys").symlink_to(built.trusted_keys)
    for seed, name in enumerate(("right.jpg", "left.jpg")):
        (tmp_path / name).write_bytes(jpeg_bytes(centred_fundus(160, seed=seed)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vendor_code() -> str:
    """The one Python block, with the deadline of a loaded test machine."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert "deadline_ms=2000" in code
    return str(code).replace("deadline_ms=2000", "deadline_ms=600_000")


def run_vendor_code(folder: Path) -> dict[str, object]:
    exec(compile(vendor_code(), "README.md", "exec"), {})
    value: dict[str, object] = json.loads((folder / "result.json").read_text())
    return value


def test_the_vendors_python_is_ten_lines() -> None:
    assert len(vendor_code().strip().splitlines()) == 10


def test_the_vendors_python_screens_two_eyes(
    camera: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = run_vendor_code(camera)
    assert value["disposition"] == "no_refer"
    assert value["notice"] == NOTICE
    assert capsys.readouterr().out == ""


def test_the_vendors_python_asks_for_a_missing_picture(
    camera: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (camera / "left.jpg").unlink()
    value = run_vendor_code(camera)
    assert value["disposition"] == "ungradable"
    assert "('OS', ('missing image',))" in capsys.readouterr().out


def test_the_vendors_python_refuses_a_stranger(camera: Path, tmp_path: Path) -> None:
    from edge_runtime.errors import BundleSignatureError
    from edge_runtime.signing import generate_keypair

    (camera / "trusted_keys").unlink()
    stranger = generate_keypair(tmp_path / "stranger")
    (camera / "trusted_keys").mkdir()
    (camera / "trusted_keys" / "s.pub").write_bytes(stranger.public_key_path.read_bytes())
    with pytest.raises(BundleSignatureError, match="not trusted"):
        run_vendor_code(camera)
    assert not (camera / "result.json").exists()


def test_the_first_screen_has_paragraph_picture_and_both_commands() -> None:
    title, _, paragraph = FIRST_SCREEN.partition("\n\n")
    assert title == "# edge-screen"
    positions = [FIRST_SCREEN.index(word) for word in ("docs/img/overview.png", "make demo")]
    assert positions == sorted(positions)
    assert paragraph.startswith("edge-screen turns paired retinal images")
    assert "\nmake test" in FIRST_SCREEN
    assert NOTICE in FIRST_SCREEN.lower()
    assert "![Synthetic" in FIRST_SCREEN


def test_continuous_integration_runs_the_test_command_of_this_page() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


@pytest.mark.parametrize("command", ["screen", "verify", "inspect", "bench", "doctor"])
def test_the_operators_commands_are_shown(command: str) -> None:
    assert re.search(rf"^edge-screen {command}\b", README, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        "**Designed, never run here.**",
        "Real patients | **Never.**",
        "arXiv 2606.15129",
        "independent implementation inspired by",
        "[Apache-2.0](LICENSE)",
        "they cannot show how well a model screens people",
        "brings CUDA, several GB",
    ],
)
def test_the_limits_are_named(words: str) -> None:
    assert words in FLAT


def test_figures_are_inside_marked_tables_and_have_a_source() -> None:
    tables = MARKED.findall(README)
    assert "small" in {scale for scale, _ in tables}
    for scale, table in tables:
        assert "report.json" in table, "a figure says where it comes from"
        assert "synthetic" in table
        assert f"`{scale}`" in table or f"SCALE={scale}" in table


def test_no_figure_stands_outside_them() -> None:
    prose = re.sub(
        r"^```.*?^```$|`[^`]*`|\]\([^)]*\)", "", MARKED.sub("", README), flags=re.M | re.S
    )
    found = set(re.findall(r"\d+(?:\.\d+)+|\d+ ?(?:%|ms|s|times|min\w*|hours?|[GM]i?B)\b", prose))
    assert found <= {"3.10", "3.13", "2606.15129", "2.0"}
