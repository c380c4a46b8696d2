"""From data sets and models to a whole card in a folder.

DIR/
├── eyes.csv          what is known of the eyes
├── predictions.csv   what the models say of them
├── card.json         every number
├── card.html         the same for people
└── MODEL_CARD.md     the same as a model card
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from train.card.card import Card, make_card, write_json
from train.card.config import CardConfig
from train.card.datasets import load_data, require_roles
from train.card.folders import FolderReport, screen_folder
from train.card.html import write_page
from train.card.model_card import write_model_card
from train.card.predict import Progress, predict
from train.card.readers import BundleReader, Reader, TeacherReader
from train.card.tables import read_predictions, write_eyes

__all__ = ["CardInputs", "run_card"]


@dataclass(frozen=True, kw_only=True)
class CardInputs:
    """What a card is of.

    Attributes:
        data: name -> folder of a data set.
        bundles: name -> folder of a bundle.
        arms: name -> folder of a teacher's checkpoint.
        predictions: tables of further models.
        trusted_keys: of the bundles; None = where the runtime looks.
        allow_unsigned: take bundles as export writes them.
        wrong_modality: folder of pictures that must all be refused.
        originals: folder of camera originals.
        reference: model that the others are held against; None = the first.
    """

    data: Mapping[str, Path]
    bundles: Mapping[str, Path]
    arms: Mapping[str, Path]
    predictions: tuple[Path, ...] = ()
    trusted_keys: Path | None = None
    allow_unsigned: bool = False
    wrong_modality: Path | None = None
    originals: Path | None = None
    reference: str | None = None


def run_card(
    out: Path, inputs: CardInputs, config: CardConfig, *, progress: Progress = lambda *_: None
) -> Card:
    """Predict what is not predicted yet, compute the card, and write all five files.

    Raises:
        ConfigError, DataError, CheckpointError, BundleError: an input cannot be used.
    """
    require_roles(config, list(inputs.data))
    data = [load_data(name, root, config) for name, root in inputs.data.items()]
    others = [row for path in inputs.predictions for row in read_predictions(path)]
    eyes = [eye for one in data for eye in one.eyes]
    folders = _folders(inputs)
    out.mkdir(parents=True, exist_ok=True)
    write_eyes(out / "eyes.csv", eyes)
    with ExitStack() as stack:
        readers = _readers(inputs, stack)
        rows = predict(out / "predictions.csv", data, readers, others=others, progress=progress)
    card = make_card(
        config,
        [one.facts for one in data],
        [model for reader in readers for model in reader.models],
        eyes,
        rows,
        reference=inputs.reference,
        folders=folders,
    )
    write_json(out / "card.json", card)
    write_page(out / "card.html", card)
    write_model_card(out / "MODEL_CARD.md", card)
    return card


def _readers(inputs: CardInputs, stack: ExitStack) -> list[Reader]:
    """Every model, opened; the stack closes them."""
    readers: list[Reader] = []
    for name, folder in inputs.bundles.items():
        readers.append(
            BundleReader(
                name, folder, trusted_keys=inputs.trusted_keys, allow_unsigned=inputs.allow_unsigned
            )
        )
        stack.callback(readers[-1].close)
    for name, folder in inputs.arms.items():
        readers.append(TeacherReader(name, folder))
        stack.callback(readers[-1].close)
    return readers


def _folders(inputs: CardInputs) -> Sequence[FolderReport]:
    wanted = ((inputs.wrong_modality, True), (inputs.originals, False))
    return [
        screen_folder(folder, bundle, must_refuse=must_refuse, trusted_keys=inputs.trusted_keys)
        for folder, must_refuse in wanted
        if folder is not None
        for bundle in inputs.bundles.values()
    ]
