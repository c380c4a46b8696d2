"""What pretraining on 674,893 triples would take: memory, time and cost, every assumption shown.

    python benchmarks/plan_pretraining.py
    python benchmarks/plan_pretraining.py --num-gpus 16 --utilization 0.4 --json

The arithmetic of one eye is counted by running this repository's own model, forward and
backward, on tensors without values. What a GPU makes of it is an assumption until someone
measures it; so are prices, epochs and the sizes of files. Nothing here ran on a GPU.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import click

ASSUMED, COUNTED, COMPUTED, GIVEN = "assumed", "counted", "computed", "given"
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of the plan and what kind of figure it is."""

    name: str
    value: float
    unit: str
    kind: str


@click.command()
@click.option("--num-triples", default=674_893, show_default=True, help="Eyes of an epoch.")
@click.option("--epochs", default=100.0, show_default=True, help="Passes over the data.")
@click.option("--batch-size", default=2048, show_default=True, help="Global batch.")
@click.option("--size-px", default=448, show_default=True, help="Side of the network input.")
@click.option("--width", default=768, show_default=True, help="ViT-B: 768.")
@click.option("--depth", default=12, show_default=True, help="ViT-B: 12.")
@click.option("--num-heads", default=12, show_default=True, help="ViT-B: 12.")
@click.option("--stem-width", default=64, show_default=True, help="Channels after the first conv.")
@click.option("--num-gpus", default=8, show_default=True)
@click.option("--slice-size", default=64, show_default=True, help="Eyes a GPU holds at once.")
@click.option("--peak-tflops", default=989.0, show_default=True, help="bf16 peak of a GPU.")
@click.option("--utilization", default=0.3, show_default=True, help="Share of the peak reached.")
@click.option("--price-hour", default=3.0, show_default=True, help="US dollars a GPU hour.")
@click.option("--activation-share", default=0.6, show_default=True, help="bf16 over float32.")
@click.option("--triple-kb", default=220.0, show_default=True, help="Files of an eye, kB.")
@click.option("--prepare-ms", default=30.0, show_default=True, help="CPU time to prepare an eye.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(as_json: bool, **given: Any) -> None:
    """Plan a pretraining run."""
    flops, activations, parameters = count_model(given)
    lines = plan(given, flops=flops, activations=activations, parameters=parameters)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines]))
        return
    for line in lines:
        click.echo(f"{line.name:52s}{line.value:16,.6g} {line.unit:14s}{line.kind}")


def count_model(given: dict[str, Any]) -> tuple[float, float, int]:
    """Count one eye's work in this repository's model.

    Returns:
        FLOPs of forward and backward, bytes kept for the backward (float32), parameters.
    """
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode

    from train.encoder import EncoderConfig
    from train.oct_targets import OctTargetConfig
    from train.pretrain_model import PretrainModel
    from train.routes import route_table

    shape = {k: given[k] for k in ("size_px", "width", "depth", "num_heads", "stem_width")}
    target = OctTargetConfig(num_components=0)  # a small matrix, and it wants data to be fitted
    with torch.device("meta"):
        model = PretrainModel(
            encoder=EncoderConfig(**shape),
            oct_target=target,
            routes=route_table("oct_informed"),
            whitened=None,
        ).train()
    num, kept = 16, {}  # the accompanying routes take a share of the batch: 16 divides well

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # holding it keeps the number from being used again
        return tensor

    size, side = given["size_px"], target.side_px
    cfp = torch.zeros(num, 3, size, size, device="meta")
    scans = torch.zeros(num, 2, side, side, device="meta")
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(note, lambda tensor: tensor), _masks_without_values():
            loss = model.total_loss(model(cfp, scans, scans, torch.Generator()))
        loss.backward()
    kept_bytes = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    parameters = sum(p.numel() for p in model.parameters())
    return counter.get_total_flops() / num, kept_bytes / num, parameters


def _masks_without_values() -> Any:
    """Inside it masks hide nothing: drawing them needs values, and they cost no arithmetic."""
    from unittest import mock

    import torch

    def nothing_hidden(num: int, in_field: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros(num, len(in_field), dtype=torch.bool, device=in_field.device)

    return mock.patch("train.pretrain_model.hidden_patches", nothing_hidden)


def plan(given: dict[str, Any], *, flops: float, activations: float, parameters: int) -> list[Line]:
    """Everything that follows; a function of its arguments."""
    images_s = given["num_gpus"] * given["peak_tflops"] * 1e12 * given["utilization"] / flops
    images = given["num_triples"] * given["epochs"]
    hours = images / images_s / 3600
    weights = 16 * parameters / _GIB  # float32: weight, gradient and two moments
    held = given["slice_size"] * activations * given["activation_share"] / _GIB
    return [
        Line(name="triples", value=given["num_triples"], unit="eyes", kind=GIVEN),
        Line(name="epochs", value=given["epochs"], unit="", kind=ASSUMED),
        Line(name="global batch", value=given["batch_size"], unit="eyes", kind=ASSUMED),
        Line(name="steps", value=images / given["batch_size"], unit="", kind=COMPUTED),
        Line(name="parameters with decoders", value=parameters / 1e6, unit="M", kind=COUNTED),
        Line(name="forward and backward of one eye", value=flops / 1e9, unit="GFLOP", kind=COUNTED),
        Line(name="GPUs", value=given["num_gpus"], unit="", kind=GIVEN),
        Line(name="bf16 peak of one", value=given["peak_tflops"], unit="TFLOP/s", kind=ASSUMED),
        Line(name="share of the peak reached", value=given["utilization"], unit="", kind=ASSUMED),
        Line(name="eyes a second, all GPUs", value=images_s, unit="1/s", kind=COMPUTED),
        Line(name="time", value=hours, unit="h", kind=COMPUTED),
        Line(name="GPU hours", value=hours * given["num_gpus"], unit="h", kind=COMPUTED),
        Line(name="price of a GPU hour", value=given["price_hour"], unit="US$", kind=ASSUMED),
        Line(
            name="cost",
            value=hours * given["num_gpus"] * given["price_hour"],
            unit="US$",
            kind=COMPUTED,
        ),
        Line(
            name="weights, gradients, moments a GPU, DDP", value=weights, unit="GiB", kind=COUNTED
        ),
        Line(
            name="the same, FSDP",
            value=weights / given["num_gpus"],
            unit="GiB",
            kind=COMPUTED,
        ),
        Line(
            name="kept for backward, one eye, float32",
            value=activations / 2**20,
            unit="MiB",
            kind=COUNTED,
        ),
        Line(
            name="bf16 over float32 of it", value=given["activation_share"], unit="", kind=ASSUMED
        ),
        Line(name="eyes in a slice", value=given["slice_size"], unit="", kind=ASSUMED),
        Line(name="kept for backward, one slice", value=held, unit="GiB", kind=COMPUTED),
        Line(
            name="slices of a global batch",
            value=given["batch_size"] / given["slice_size"],
            unit="",
            kind=COMPUTED,
        ),
        Line(name="a training state on disk", value=12 * parameters / 1e9, unit="GB", kind=COUNTED),
        Line(name="files of one eye", value=given["triple_kb"], unit="kB", kind=ASSUMED),
        Line(
            name="shards on disk",
            value=given["num_triples"] * given["triple_kb"] / 1e6,
            unit="GB",
            kind=COMPUTED,
        ),
        Line(
            name="reading",
            value=images_s * given["triple_kb"] / 1e3,
            unit="MB/s",
            kind=COMPUTED,
        ),
        Line(
            name="CPU time to prepare one eye", value=given["prepare_ms"], unit="ms", kind=ASSUMED
        ),
        Line(
            name="CPU cores for the workers",
            value=images_s * given["prepare_ms"] / 1e3,
            unit="",
            kind=COMPUTED,
        ),
    ]


if __name__ == "__main__":
    main()
