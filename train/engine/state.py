"""Training states on disk: everything a run needs to go on as if it had never stopped.

    STATES/step-00000120/state.safetensors    weights, optimizer, random states, recent losses
    STATES/step-00000120/state.json           step, sampler, settings, SHA-256 of the tensors

A state is written into a folder of another name, synchronised to disk and renamed: a folder
with the right name is whole unless the disk damaged it, which the SHA-256 shows. Never pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edge_runtime import __version__
from edge_runtime.errors import CheckpointError

__all__ = ["TrainingState", "list_states", "load_state", "require_same_run", "save_state"]

_FORMAT = 1
_TENSORS, _RECORD = "state.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """A run between two steps.

    Attributes:
        step: steps done.
        num_skipped: of these, skipped by the guard.
        num_slices: slices of the global batch; a resumed run keeps it.
        world_size: ranks that wrote it; a resumed run may have another number.
        sampler: state of the `EpochSampler`.
        identity: settings and data of the run; a resumed run must have the same.
        tensors: name -> whole tensor on the CPU.
    """

    step: int
    num_skipped: int
    num_slices: int
    world_size: int
    sampler: Mapping[str, int]
    identity: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose name begins with `prefix`, without it."""
        found = self.tensors.items()
        return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}


def _name_of(step: int) -> str:
    return f"step-{step:08d}"


def list_states(folder: Path) -> dict[int, Path]:
    """Step -> folder of each state, oldest first; unfinished ones are not among them."""
    if not folder.is_dir():
        return {}
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def save_state(folder: Path, state: TrainingState, *, keep: int) -> Path:
    """Write one state, whole or not at all, then drop all but the newest `keep`.

    Returns:
        The folder written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.part"):
        shutil.rmtree(leftover)  # of a run that was killed while writing
    final = folder / _name_of(state.step)
    part = folder / f"{final.name}.part"
    part.mkdir()
    save_file(dict(state.tensors), str(part / _TENSORS))
    record = _record(state, sha256=_sha256(part / _TENSORS))
    (part / _RECORD).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", "utf-8")
    for path in (part / _TENSORS, part / _RECORD, part):
        _synchronize(path)
    if final.exists():  # written before the run went back to an earlier step
        shutil.rmtree(final)
    part.rename(final)
    _synchronize(folder)
    _drop_old(folder, state.step, keep)
    return final


def _record(state: TrainingState, *, sha256: str) -> dict[str, Any]:
    plain = {one.name: getattr(state, one.name) for one in fields(state) if one.name != "tensors"}
    return {"format": _FORMAT, "code_version": __version__, **plain, "sha256": sha256}


def _drop_old(folder: Path, newest: int, keep: int) -> None:
    """Keep `keep` states up to `newest`; later ones are of a run that went back to here."""
    states = list_states(folder)
    kept = [step for step in states if step <= newest][-keep:]
    for step in set(states) - set(kept):
        shutil.rmtree(states[step])


def load_state(folder: Path, *, step: int | None = None) -> TrainingState | None:
    """Read the newest state, or the one of `step`.

    Returns:
        None if no step was asked for and there is no state.

    Raises:
        CheckpointError: there is no state of that step, or it is damaged; the message then
            says which state before it could be resumed from.
    """
    states = list_states(folder)
    if step is None and not states:
        return None
    chosen = max(states) if step is None else step
    if chosen not in states:
        have = ", ".join(map(str, states)) or "none"
        raise CheckpointError(f"{folder} has no state of step {chosen}; it has: {have}")
    try:
        return _read(states[chosen])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"training state {states[chosen]} is damaged: {error!r}; {_offer(states, chosen)}"
        ) from error


def require_same_run(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Compare the identity of a state with that of the run that wants to go on from it.

    Raises:
        CheckpointError: a setting or the data differ.
    """
    own = json.loads(json.dumps(own))  # as it was saved: tuples are lists
    different = sorted(k for k in {*saved, *own} if saved.get(k) != own.get(k))
    if different:
        pairs = "; ".join(f"{k}: {saved.get(k)!r} then, {own.get(k)!r} now" for k in different)
        raise CheckpointError(
            f"the training state is of another run: {pairs}; give the settings and the data of "
            "the interrupted run, or another folder"
        )


def _read(path: Path) -> TrainingState:
    record = json.loads((path / _RECORD).read_text(encoding="utf-8"))
    if record.pop("format") != _FORMAT:
        raise ValueError(f"the format is not {_FORMAT}, the one this version reads")
    record.pop("code_version")
    expected, found = record.pop("sha256"), _sha256(path / _TENSORS)
    if found != expected:
        raise ValueError(f"SHA-256 of {_TENSORS} is {found}, not {expected}")
    return TrainingState(**record, tensors=load_file(str(path / _TENSORS)))


def _offer(states: Mapping[int, Path], damaged: int) -> str:
    earlier = [step for step in states if step < damaged]
    if not earlier:
        return "there is none before it; start the run anew"
    return f"the state before it is of step {max(earlier)}: resume from that step"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
