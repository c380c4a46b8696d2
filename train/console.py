"""What the commands of training and distillation share: options, progress, the last lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_runtime.result import NOTICE

if TYPE_CHECKING:
    from train.data.origin import DataOrigin

__all__ = [
    "FOLDER",
    "device_option",
    "draws_option",
    "json_option",
    "report_record",
    "save_every_option",
    "seed_option",
    "show_progress",
]

_EVERY = 100  # steps between two lines where output is no terminal

FOLDER = click.Path(file_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the networks run; auto is CUDA where there is some.",
)
draws_option = click.option(
    "--num-draws",
    type=click.IntRange(100),
    default=2000,
    show_default=True,
    help="Bootstrap draws of patients.",
)
save_every_option = click.option(
    "--save-every",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Steps between training states in OUT/states; 0 = no states.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def seed_option(text: str) -> Callable[[_Command], _Command]:
    """The option `--seed`, 0 or more; `text` says what it draws."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=text)


def show_progress() -> Callable[[int, int, str], None]:
    """Progress on stderr: one line rewritten on a terminal; elsewhere a line now and then.

    The last step is always shown, and every one where they are few, such as stages.
    """
    on_terminal = sys.stderr.isatty()

    def show(done: int, total: int, text: str) -> None:
        if on_terminal:
            end = "\n" if done == total else ""
            click.echo(f"\r\033[Kstep {done}/{total}  {text}{end}", err=True, nl=False)
        elif done == total or done % _EVERY == 0 or total < _EVERY:
            click.echo(f"step {done}/{total}  {text}", err=True)

    return show


def report_record(
    record: dict[str, Any], origin: DataOrigin, as_json: bool, sentences: list[str]
) -> None:
    """One JSON object or lines for people; both say what the data are and what this is not."""
    if as_json:
        data = {"synthetic": origin.synthetic, "fingerprint": origin.fingerprint}
        click.echo(json.dumps({**record, "data": data, "notice": NOTICE}, allow_nan=False))
        return
    for sentence in (*sentences, f"data: {origin.sentence}", NOTICE):
        click.echo(sentence)
