"""`edge-screen engine build`, `list`, `clear`: what they print, exit with and touch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_factory import BuiltBundle, build_bundle
from click.testing import CliRunner, Result
from fake_tensorrt.fake import FakeTensorRT
from trt_factory import ORIN, build_here, installed

from edge_runtime.cli import main
from edge_runtime.engines.trt_cache import cache_root
from edge_runtime.engines.trt_survey import survey_tensorrt
from edge_runtime.errors import EngineError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_SCREEN_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    """An Orin with TensorRT 10.3, building in this process."""
    for module in ("trt_plan", "trt_dry_run", "trt_survey"):
        monkeypatch.setattr(f"edge_runtime.engines.{module}.read_device", lambda: ORIN)
    monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
    with installed(FakeTensorRT("10.3.0"), monkeypatch) as fake:
        yield fake


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["engine", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def json_of(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*words, "--json").stdout)
    assert "not a medical device" in found["notice"]
    return found


@pytest.mark.parametrize("version", ["8.6", "10.3", "10.16", "11.4"])
def test_a_dry_run_needs_neither_tensorrt_nor_a_gpu(
    version: str, built: BuiltBundle, cache: Path
) -> None:
    words = ("build", built.folder, "--dry-run", "--for-version", version)
    text = run(*words).stdout
    value = json_of(*words)
    assert value["recipe"]["tensorrt_version"] == version
    assert value["file"] == "model.int8.onnx"
    assert value["key"] is value["cached"] is value["device"] is None
    for line in (value["trtexec"], value["polygraphy"], *value["notes"]):
        assert line in text
    assert "no GPU was asked" in text
    assert "no CUDA driver" not in text
    assert ("no model.int8fp16.onnx" in text) == (version in ("10.16", "11.4"))
    assert not cache.exists()


def test_a_dry_run_for_no_version_needs_tensorrt(built: BuiltBundle) -> None:
    result = run("build", built.folder, "--dry-run", code=5)
    assert "TensorRT cannot be imported" in result.stderr
    assert "--dry-run --for-version 10.3" in result.stderr


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--for-version", "10.3"], 2, "--for-version is for --dry-run"),
        (["--precision", "int4"], 2, "int4"),
        (["--dry-run", "--for-version", "9.1"], 5, "outside the versions"),
        (["--dry-run", "--for-version", "11.4", "--precision", "fp16"], 5, "has no FP16 flag"),
        (["--core", "dla"], 5, "Orin Nano has none"),
        ([], 5, "TensorRT cannot be imported"),
        (["--trusted-keys", "nowhere"], 4, "nowhere"),
    ],
)
def test_refusals_have_the_exit_codes_of_the_error_tree(
    words: list[str], code: int, text: str, built: BuiltBundle
) -> None:
    assert text in run("build", built.folder, *words, code=code).stderr


@pytest.mark.usefixtures("orin")
def test_build_then_list_then_clear(built: BuiltBundle, cache: Path) -> None:
    planned = json_of("build", built.folder, "--dry-run")
    assert planned["cached"] is False
    first = run("build", built.folder)
    assert first.stdout.startswith("built\n")
    assert "this takes minutes, once" in first.stderr
    assert json_of("build", built.folder, "--dry-run")["cached"] is True
    named = json_of("build", built.folder, "--dry-run", "--for-version", "10.3")
    assert (named["device"]["name"], named["key"], named["cached"]) == ("Orin", None, None)
    again = json_of("build", built.folder)
    assert again["was_built"] is False
    assert again["key"] == planned["key"]
    assert "nothing to do" in run("build", built.folder).stdout
    assert json_of("build", built.folder, "--rebuild")["was_built"] is True
    (row,) = json_of("list")["engines"]
    assert row["problem"] is None
    assert row["sidecar"]["recipe"]["precision"] == "int8"
    assert "log" not in row["sidecar"]
    assert "TensorRT 10.3.0" in run("list").stdout
    assert json_of("clear", built.folder)["num_files"] == 2
    assert json_of("list")["engines"] == []
    assert json_of("clear", "--all")["num_files"] == 1  # the timings
    assert not list(cache.rglob("*.plan"))


@pytest.mark.usefixtures("orin")
def test_list_says_why_an_entry_is_not_used(built: BuiltBundle, cache: Path) -> None:
    run("build", built.folder)
    (plan,) = cache.rglob("*.plan")
    plan.write_bytes(plan.read_bytes() + b"!")
    plan.with_name("ab" * 32 + ".plan").write_bytes(b"left by a killed build")
    rows = json_of("list")["engines"]
    problems = sorted(row["problem"].partition(" is ")[2][:9] for row in rows)
    assert problems == ["damaged: ", "not whole"]
    assert run("list").stdout.count("NOT USED") == 2


@pytest.mark.usefixtures("orin")
def test_list_says_when_an_entry_is_of_another_bundle(built: BuiltBundle, cache: Path) -> None:
    run("build", built.folder)
    (plan,) = cache.rglob("*.plan")
    plan.parent.rename(cache / ("ab" * 32))
    (row,) = json_of("list")["engines"]
    assert "is foreign" in row["problem"]


@pytest.mark.usefixtures("orin")
def test_clear_touches_only_what_the_cache_made(built: BuiltBundle, cache: Path) -> None:
    run("build", built.folder)
    mine = cache / "notes.txt"
    mine.write_text("keep")
    (folder,) = (path for path in cache.iterdir() if len(path.name) == 64)
    (folder / "notes.txt").write_text("keep")
    run("clear", "--all")
    assert mine.read_text() == (folder / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("words", [[], ["B", "--all"]])
def test_clear_wants_one_choice(words: list[str]) -> None:
    assert "Give either BUNDLE or --all" in run("clear", *words, code=2).stderr


def test_an_empty_cache_is_listed_and_cleared_without_being_made(cache: Path) -> None:
    assert json_of("list") == {
        "cache_dir": str(cache),
        "engines": [],
        "notice": json_of("list")["notice"],
    }
    assert json_of("clear", "--all")["num_files"] == 0
    assert not cache.exists()


def test_the_option_wins_over_the_variable_and_that_over_the_home(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json_of("list")["cache_dir"] == str(cache)
    assert json_of("list", "--cache-dir", tmp_path / "own")["cache_dir"] == str(tmp_path / "own")
    monkeypatch.delenv("EDGE_SCREEN_ENGINE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / ".cache" / "edge-screen" / "engines"


def test_a_user_without_a_home_is_told_to_name_a_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # in a container, without an account
    assert json_of("list")["cache_dir"] == str(cache)
    monkeypatch.delenv("EDGE_SCREEN_ENGINE_CACHE")
    assert "name a folder with --cache-dir" in run("list", code=2).stderr


@pytest.mark.usefixtures("orin")
def test_the_survey_says_what_would_be_built_here() -> None:
    survey = survey_tensorrt()
    assert (survey.version, survey.device, survey.problem) == ("10.3.0", ORIN, None)
    assert {one.precision: (one.typing, one.files) for one in survey.choices} == {
        "fp32": ("weak", ("model.fp32.onnx",)),
        "fp16": ("weak", ("model.fp32.onnx",)),
        "int8": ("weak", ("model.int8.onnx",)),
    }


def test_the_survey_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    survey = survey_tensorrt()
    assert survey.version is None
    assert "cannot be imported" in str(survey.problem)

    def refuse() -> None:
        raise EngineError("no GPU here")

    monkeypatch.setattr("edge_runtime.engines.trt_survey.read_device", refuse)
    with FakeTensorRT("11.4.0.106").installed():
        survey = survey_tensorrt()
    assert (survey.version, survey.device, survey.problem) == ("11.4.0.106", None, "no GPU here")
    refused = {one.precision: one.refused for one in survey.choices}
    assert "no FP16 flag" in str(refused["fp16"])
