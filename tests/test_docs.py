"""The guides against the code: every command, link, file, exit code and figure that they name."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import click
import cv2
import numpy as np
import pytest

from edge_runtime import errors
from edge_runtime.cli import main
from edge_runtime.result import NOTICE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where the standard library lacks it

ROOT = Path(__file__).resolve().parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [ROOT / "edge_runtime" / "README.md", *GUIDES]
ENGINEER = ROOT / "docs" / "engineer.md"
MAX_PICTURE_BYTES = 400_000

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_SHELL_OPERATORS = {">", "2>", "|", "&&"}
_PLAIN_TOOLS = {"mkdir", "cp", "."}
# Named as examples of what not to write.
_ABSENT_ON_PURPOSE = {"export/onnx.py"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _commands() -> dict[str, click.Command]:
    """Device commands, and workstation commands as pyproject.toml declares them."""
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    found = dict(main.commands)
    for name, target in project["entry-points"]["edge_screen.commands"].items():
        module, _, attribute = target.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


COMMANDS = _commands()


def _leaves() -> set[str]:
    """Every command that does something: 'screen', 'data check'."""
    found = set()
    for name, command in COMMANDS.items():
        inner = command.commands if isinstance(command, click.Group) else None
        found |= {name} if inner is None else {f"{name} {sub}" for sub in inner}
    return found


def _resolve(words: list[str]) -> tuple[str, click.Command, list[str]]:
    """Split ['data', 'check', 'DIR'] into its name, the command and the arguments."""
    assert words, "a command is named"
    assert words[0] in COMMANDS, f"edge-screen has no command {words[0]!r}"
    name, command, rest = words[0], COMMANDS[words[0]], words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"edge-screen {name} has no command {rest[0]!r}"
        name, command, rest = f"{name} {rest[0]}", command.commands[rest[0]], rest[1:]
    return name, command, rest


def _options(command: click.Command) -> set[str]:
    return {text for param in command.params for text in param.opts} | {"--help", "-h"}


ALL_OPTIONS = {"--version", "--help", "-h"}.union(
    *(
        _options(one)
        for command in COMMANDS.values()
        for one in (command.commands.values() if isinstance(command, click.Group) else [command])
    )
)


def _shell_lines(text: str) -> Iterator[str]:
    """Lines of shell blocks, continuation lines joined."""
    for language, body in _FENCE.findall(text):
        if language == "sh":
            yield from (line for line in body.replace("\\\n", " ").splitlines() if line.strip())


def _loose_lines(text: str) -> Iterator[str]:
    """Commands in blocks without a language and in indented blocks, their remarks cut off."""
    bodies = [body.splitlines() for language, body in _FENCE.findall(text) if not language]
    bodies.append(_INDENTED.findall(_FENCE.sub("", text)))
    for line in (line for body in bodies for line in body):
        if re.match(r"(edge-screen|make)\s|[A-Z]+=\S+ make\s", line):
            yield re.split(r"\s{2,}(?!-)|\s# ", line)[0]


def _words(line: str) -> list[str]:
    """The words of a shell line without remarks, leading assignments and redirections."""
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    ends = [i for i, word in enumerate(words) if word in _SHELL_OPERATORS]
    return words[: ends[0]] if ends else words


def _written(page: Path) -> list[list[str]]:
    """Every complete command line of a page."""
    text = _text(page)
    lines = [*_shell_lines(text), *_loose_lines(text)]
    return [words for words in map(_words, lines) if words]


def _spans(page: Path) -> list[str]:
    return _SPAN.findall(_FENCE.sub("", _text(page)))


def _run_checks(words: list[str]) -> None:
    """One command line: it exists, and it parses."""
    tool = Path(words[0]).name
    if tool == "torchrun":
        start = words.index("-m")
        assert words[start + 1] == "edge_runtime", "torchrun starts the command's module"
        tool, words = "edge-screen", words[start + 1 :]
    if tool == "edge-screen":
        name, command, arguments = _resolve(words[1:])
        if "--help" not in arguments:
            command.make_context(name, list(arguments))
    elif tool == "make":
        _check_make(words[1:])
    elif tool == "python":
        assert (ROOT / words[1]).is_file(), f"{words[1]} does not exist"
    else:
        assert words[0] in _PLAIN_TOOLS, f"no test knows how to check {words[0]!r}"


def _makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):.*## ", _text(ROOT / "Makefile"), re.MULTILINE))


def _check_make(words: list[str]) -> None:
    makefile = _text(ROOT / "Makefile")
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert re.search(rf"^{name} *[?:]?=", makefile, re.MULTILINE), f"make knows no {name}"
        else:
            assert name in _makefile_targets(), f"make has no target {name!r}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_line_exists_and_parses(page: Path) -> None:
    for words in _written(page):
        try:
            _run_checks(words)
        except click.ClickException as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    for span in _spans(page):
        words = span.replace("...", "").replace("…", "").split()
        if words[:1] == ["make"]:
            _check_make(words[1:])
        elif words[:1] == ["edge-screen"] and words[1:2] not in ([], ["COMMAND"]):
            inner = [word for word in words[1:] if word not in ("-h", "--help", "--version")]
            if inner and not inner[0].startswith("-"):
                _, command, rest = _resolve(inner)
                used = {word.partition("=")[0] for word in rest if word.startswith("--")}
                assert used <= _options(command), span


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_option_in_a_sentence_exists(page: Path) -> None:
    for span in _spans(page):
        if span.startswith("--"):
            option = re.split(r"[ =]", span)[0]
            assert option in ALL_OPTIONS, f"{span}: no command has it"


def test_the_checks_are_not_blind() -> None:
    assert sum(len(_written(page)) for page in PAGES) > 30
    assert sum(len(_spans(page)) for page in PAGES) > 100
    wrong = ["screem B a.jpg", "screen B a.jpg --fast", "data chekc D", "pretrain --data D"]
    for line in wrong:
        with pytest.raises((AssertionError, click.UsageError)):
            _run_checks(["edge-screen", *line.split()])
    for line in ("make dmeo", "make demo SIZE=small", "python docs/img/nothing.py", "curl x"):
        with pytest.raises(AssertionError):
            _run_checks(line.split())


def test_every_command_is_documented_and_shown_in_use() -> None:
    used = {
        _resolve(words[1:])[0]
        for page in PAGES
        for words in _written(page)
        if Path(words[0]).name == "edge-screen"
    }
    assert _leaves() - used == set()


def test_every_make_target_is_documented() -> None:
    written = {word for page in PAGES for words in _written(page) for word in words[1:]}
    spans = {word for page in PAGES for span in _spans(page) for word in span.split()[1:]}
    assert _makefile_targets() - written - spans == set()


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", _text(page)), re.MULTILINE)
    cleaned = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in cleaned}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", _text(page))):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.is_relative_to(ROOT), link
        assert path.exists(), f"{_name(page)} links to {link}, which is not there"
        assert not anchor or anchor in _anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_named_in_sentences_exist(page: Path) -> None:
    places = "benchmarks|calibration|distill|docs|edge_runtime|export|tests|train"
    for span in _spans(page):
        named = re.fullmatch(rf"(?:{places})/[\w./-]+\.(?:py|md|toml|png)", span)
        if named and span not in _ABSENT_ON_PURPOSE:
            assert (ROOT / span).is_file(), f"{_name(page)} names {span}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_blocks_use_what_exists(page: Path) -> None:
    for language, body in _FENCE.findall(_text(page)):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                missing = [one.name for one in node.names if not hasattr(module, one.name)]
                assert missing == [], f"{node.module} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_environment_variables_are_read_somewhere(page: Path) -> None:
    sources = [*(ROOT / "edge_runtime").rglob("*.py"), ROOT / "tests" / "conftest.py"]
    code = "\n".join(map(_text, sources))
    for name in set(re.findall(r"EDGE_SCREEN_[A-Z_]+", _text(page))):
        assert name in code, f"nothing reads {name}"


@pytest.mark.parametrize("page", GUIDES, ids=_name)
def test_every_guide_says_what_this_is_not(page: Path) -> None:
    assert NOTICE in " ".join(_text(page).split()).lower()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_calibration_is_never_named_alone(page: Path) -> None:
    """Two things carry the word: 'INT8 calibration' and 'probability calibration'."""
    prose = _SPAN.sub("", re.sub(r'"[^"\n]*"|\]\([^)]*\)', "", _FENCE.sub("", _text(page))))
    prose = " ".join(line for line in prose.splitlines() if not line.startswith("    "))
    bare = re.findall(r"(?<!INT8 )(?<!INT8-)(?<![Pp]robability )(?<!\[)\bcalibration\b", prose)
    assert bare == []


def test_the_index_names_every_guide() -> None:
    index = _text(ROOT / "docs" / "README.md")
    for guide in GUIDES:
        assert guide.name == "README.md" or f"({guide.name})" in index, guide.name


def test_the_costs_are_those_that_the_command_prints() -> None:
    from export.demo.presets import PRESETS

    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", _text(ENGINEER), re.MULTILINE))
    assert {name: rows.get(name) for name in PRESETS} == {
        name: one.cost for name, one in PRESETS.items()
    }


def test_the_stage_table_names_what_the_demo_writes() -> None:
    table = _text(ENGINEER).split("## What each stage writes")[1].split("\n## ")[0]
    folder = ROOT / "export" / "demo"
    code = "\n".join(map(_text, [*folder.glob("*.py"), ROOT / "train" / "phantom" / "writer.py"]))
    code += _text(ROOT / "train" / "phantom" / "camera_set.py")
    code += _text(ROOT / "train" / "checkpoint.py")
    names = [span.rstrip("/") for span in _SPAN.findall(table) if re.search(r"[/.]", span)]
    assert len(names) > 12
    for name in names:
        assert name.rpartition("/")[2] in code, f"nothing writes {name}"


def test_the_report_has_the_sections_and_keys_of_the_guide() -> None:
    from export.demo.model import DemoReport, PretrainingSummary, Target

    guide = _text(ENGINEER).split("## How to read report.html")[1].split("\n## ")[0]
    titles = re.findall(r"^\d\. \*\*(.+)\.\*\*", guide, re.MULTILINE)
    code = "\n".join(map(_text, sorted((ROOT / "export" / "demo").glob("sections*.py"))))
    assert len(titles) == len(re.findall(r"\bsection\(", code))
    assert [title for title in titles if f'"{title}"' not in code] == []
    keys = {field.name for kind in (DemoReport, Target) for field in fields(kind)}
    keys |= {f"pretraining.{field.name}" for field in fields(PretrainingSummary)}
    paragraph = guide[guide.index("`report.json` has") :]
    assert set(_SPAN.findall(paragraph)) - {"report.json"} <= keys


def test_exit_codes_are_those_of_the_errors() -> None:
    by_code = {
        2: errors.ConfigError,
        6: errors.DataError,
        7: errors.CheckpointError,
        8: errors.GateRefusedError,
        9: errors.ParityError,
    }
    assert {code: kind.exit_code for code, kind in by_code.items()} == {c: c for c in by_code}
    rows = re.findall(r"^\| (\d+) \|", _text(ENGINEER), re.MULTILINE)
    assert [int(row) for row in rows] == list(by_code)
    operator = _text(ROOT / "docs" / "operator.md")
    for name in errors.__all__:
        code = getattr(errors, name).exit_code
        assert re.search(rf"^\| {code} \|", operator, re.MULTILINE) or 6 <= code <= 9, name
    assert "| 6 to 9 |" in operator


@pytest.fixture(scope="module")
def overview() -> ModuleType:
    """The script that draws the picture of the front page."""
    path = ROOT / "docs" / "img" / "overview.py"
    spec = importlib.util.spec_from_file_location("overview", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_overview_picture_is_what_its_script_draws(overview: ModuleType) -> None:
    committed = ROOT / "docs" / "img" / "overview.png"
    assert committed.stat().st_size < MAX_PICTURE_BYTES
    there = cv2.imread(str(committed))[..., ::-1]
    again = overview.draw_overview()
    assert again.shape == there.shape
    # One grey level on average: other processors round the phantom's floats in other ways.
    assert np.abs(again.astype(int) - there).mean() < 1.0
    assert there.std() > 20
