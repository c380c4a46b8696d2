"""The command `edge-screen evaluate card`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.commands.options import trusted_keys_option
from edge_runtime.result import NOTICE
from train.console import FOLDER, draws_option, json_option, seed_option, show_progress

if TYPE_CHECKING:
    from train.card.card import Card

__all__ = ["card"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder of the card; resumable.")
@click.option(
    "--data",
    "data",
    multiple=True,
    required=True,
    metavar="NAME=DIR",
    help="Data set with index.csv; repeat for more.",
)
@click.option(
    "--in-domain",
    multiple=True,
    metavar="NAME",
    help="Data set of a source that was trained on. [default: every one is external]",
)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    metavar="NAME=DIR",
    help="Bundle: its FP32 and INT8 graphs.",
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME=DIR",
    help="Teacher checkpoint to set beside; a student comes as a bundle.",
)
@click.option(
    "--predictions", multiple=True, type=_FILE, help="predictions.csv of any other model."
)
@click.option(
    "--reference", metavar="MODEL", help="The others are compared with it. [default: the first]"
)
@click.option(
    "--also",
    multiple=True,
    metavar="OUTPUT=COLUMN",
    help="Hold an output against a label of another name, too.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="test",
    show_default=True,
    help="Of every data set; train and val need --allow-seen.",
)
@click.option(
    "--allow-seen", is_flag=True, help="Score eyes that choices were made on; the card says so."
)
@click.option("--allow-unsigned", is_flag=True, help="Take bundles as export writes them.")
@click.option("--wrong-modality", type=FOLDER, help="Pictures that must all be refused.")
@click.option("--originals", type=FOLDER, help="Camera originals, screened end to end.")
@trusted_keys_option
@draws_option
@seed_option("Of the bootstrap draws.")
@json_option
def card(
    out: Path,
    data: Sequence[str],
    in_domain: Sequence[str],
    bundles: Sequence[str],
    arms: Sequence[str],
    predictions: Sequence[Path],
    reference: str | None,
    also: Sequence[str],
    split: str,
    allow_seen: bool,
    allow_unsigned: bool,
    wrong_modality: Path | None,
    originals: Path | None,
    trusted_keys: Path | None,
    num_draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Write an evaluation card of models over data sets: HTML, JSON and a model card.

    Every model first fills a table of predictions; the card is computed from tables alone.

    \b
    Example:
        edge-screen evaluate card --out runs/card --data odir=runs/odir --in-domain odir \\
          --data eyepacs=runs/eyepacs --bundle student=runs/bundle8 --arm teacher=runs/teacher
    """  # noqa: D301
    from train.card.config import CardConfig
    from train.card.run import CardInputs, run_card

    if split != "test" and not allow_seen:
        raise click.UsageError(f"--split {split} holds eyes that were seen; say --allow-seen")
    if (wrong_modality or originals) and not bundles:
        raise click.UsageError("--wrong-modality and --originals are screened by a --bundle.")
    config = CardConfig(
        split=split,
        in_domain=tuple(in_domain),
        also=tuple(_pair(one, "--also") for one in also),
        num_draws=num_draws,
        seed=seed,
    )
    inputs = CardInputs(
        data=_folders(data, "--data"),
        bundles=_folders(bundles, "--bundle"),
        arms=_folders(arms, "--arm"),
        predictions=tuple(predictions),
        trusted_keys=trusted_keys,
        allow_unsigned=allow_unsigned,
        wrong_modality=wrong_modality,
        originals=originals,
        reference=reference,
    )
    found = run_card(out, inputs, config, progress=show_progress())
    if as_json:
        click.echo((out / "card.json").read_text(encoding="utf-8"), nl=False)
        return
    click.echo("\n".join((*_lines(found), f"card.html, card.json, MODEL_CARD.md in {out}", NOTICE)))


def _pair(text: str, option: str) -> tuple[str, str]:
    first, mark, second = text.partition("=")
    if not (first and mark and second):
        raise click.BadParameter(f"'{text}' is not of the form NAME=VALUE", param_hint=option)
    return first, second


def _folders(texts: Sequence[str], option: str) -> dict[str, Path]:
    pairs = [_pair(text, option) for text in texts]
    found = {name: Path(folder) for name, folder in pairs}
    if len(found) < len(pairs):
        raise click.BadParameter("a name is given twice; give each its own", param_hint=option)
    return found


def _lines(found: Card) -> list[str]:
    lines = []
    for facts in found.data:
        kind = "synthetic, " if facts.synthetic else ""
        lines.append(f"{facts.name} ({kind}{facts.role}, {facts.split}): {facts.num_eyes} eyes")
        for cell in (one for one in found.cells if one.dataset == facts.name):
            auroc = cell.measure("auroc")
            words = auroc.reason
            if auroc.interval is not None:
                one = auroc.interval
                words = f"AUROC {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
            lines.append(f"  {cell.title:32s} {cell.model:24s} {words}")
    return [*lines, *found.unscored]
