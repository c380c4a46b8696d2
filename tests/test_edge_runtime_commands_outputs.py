"""No output takes the place of what is read: refused before anything is screened or timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_factory import BuiltBundle, build_bundle
from click.testing import CliRunner, Result
from fundus_factory import centred_fundus, jpeg_bytes

from edge_runtime.cli import main
from edge_runtime.commands.outputs import refuse_overwriting
from edge_runtime.errors import ConfigError

Make = Callable[[Path, Path], None]


def hard_link(new: Path, old: Path) -> None:
    """`new` is another name of `old`."""
    os.link(old, new)


def symbolic_link(new: Path, old: Path) -> None:
    """`new` leads to `old`."""
    new.symlink_to(old)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """A bundle that finds every picture gradable."""
    return build_bundle(tmp_path_factory.mktemp("outputs") / "bundle", gradability_threshold=0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of one photograph, and a list of it beside."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "eye.jpg").write_bytes(jpeg_bytes(centred_fundus(96)))
    (tmp_path / "list.csv").write_text(
        "examination_id,eye,path\nv,unspecified,photos/eye.jpg\nw,unspecified,photos/gone.jpg\n"
    )
    return folder


def run(*args: object) -> Result:
    """Run the command; a traceback fails the test."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder with its bytes."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("option", ["--csv", "--html"])
@pytest.mark.parametrize("target", ["photos/eye.jpg", "photos/gone.jpg", "list.csv"])
def test_a_report_never_overwrites_an_input(
    built: BuiltBundle, photos: Path, option: str, target: str
) -> None:
    root = photos.parent
    before = contents(root)
    spelled = photos / ".." / target
    result = run("screen", built.folder, "--examinations", root / "list.csv", option, spelled)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{option} {spelled} would overwrite" in result.stderr
    assert "name another file" in result.stderr
    assert contents(root) == before


@pytest.mark.parametrize("link", [hard_link, symbolic_link])
def test_links_to_a_picture_and_to_a_file_of_the_bundle_are_seen(
    built: BuiltBundle, photos: Path, tmp_path: Path, link: Make
) -> None:
    link(tmp_path / "picture.csv", photos / "eye.jpg")
    link(tmp_path / "card.csv", built.folder / "MODEL_CARD.md")
    for name in ("picture.csv", "card.csv"):
        result = run("screen", built.folder, photos, "--csv", tmp_path / name)
        assert (result.exit_code, result.stdout) == (2, "")
    (tmp_path / "alias").symlink_to(built.folder)
    result = run("screen", built.folder, photos, "--csv", tmp_path / "alias" / "new.csv")
    assert "lies in the bundle" in result.stderr
    (tmp_path / "card.csv").unlink()  # the bundle outlives this test


@pytest.mark.parametrize(
    "options",
    [
        ("--csv", "out/results.jsonl", "--out", "out"),
        ("--html", "out/results.jsonl", "--out", "out"),
        ("--csv", "report", "--html", "photos/../report"),
        ("--csv", "bundle/table.csv"),
        ("--html", "bundle/bundle.json"),
        ("--out", "bundle"),
        ("--evidence-dir", "bundle"),
    ],
)
def test_outputs_never_meet_each_other_nor_the_bundle(
    built: BuiltBundle, photos: Path, options: tuple[str, ...]
) -> None:
    root, before = photos.parent, contents(built.folder)
    placed = [
        one
        if one.startswith("--")
        else (built.folder.parent if one.startswith("bundle") else root) / one
        for one in options
    ]
    result = run("screen", built.folder, photos, *placed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert options[0] in result.stderr
    assert contents(built.folder) == before
    assert not (root / "out").exists()


def test_what_lies_beside_is_allowed(built: BuiltBundle, photos: Path) -> None:
    out = photos.parent / "out"
    out.mkdir()
    options = ("--csv", out / "table.csv", "--html", photos / "report.html", "--out", out)
    assert run("screen", built.folder, photos, *options).exit_code in (0, 3)
    assert run("screen", built.folder, photos, *options).exit_code in (0, 3)
    assert (out / "table.csv").stat().st_size > 0


@pytest.mark.parametrize("target", ["picture", "bundle"])
def test_bench_never_overwrites_what_it_times(
    built: BuiltBundle, photos: Path, target: str
) -> None:
    path = photos / "eye.jpg" if target == "picture" else built.folder / "bundle.json"
    before = path.read_bytes()
    result = run("bench", built.folder, photos / "eye.jpg", "--repeats", 1, "--raw", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--raw {path}" in result.stderr
    assert path.read_bytes() == before


def test_a_circle_of_links_is_no_failure(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    refuse_overwriting({"--csv": tmp_path / "a"}, [("x", circle)], bundle_dir=tmp_path / "b")
    with pytest.raises(ConfigError, match="would overwrite x"):
        refuse_overwriting({"--csv": circle}, [("x", circle)], bundle_dir=tmp_path / "b")
