"""Options that several device commands share, declared once; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = [
    "allow_unproven_option",
    "bundle_argument",
    "cache_dir_option",
    "engine_option",
    "example",
    "json_option",
    "precision_option",
    "provider_option",
    "trusted_keys_option",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
trusted_keys_option = click.option(
    "--trusted-keys",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Public key file, or folder of *.pub. [default: EDGE_SCREEN_TRUSTED_KEYS, "
    "then the folder trusted_keys beside the bundle]",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["int8", "fp32", "fp16"]),
    default="int8",
    show_default=True,
    help="fp16 is for TensorRT only.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "onnxruntime", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto: TensorRT where its engine was built, else ONNX Runtime; the result says which.",
)
provider_option = click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="Of --engine onnxruntime: what runs the graph; nothing runs in its place.",
)
cache_dir_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where `engine build` keeps engines. [default: EDGE_SCREEN_ENGINE_CACHE, then "
    "~/.cache/edge-screen/engines]",
)
allow_unproven_option = click.option(
    "--allow-unproven-int8",
    is_flag=True,
    help="Take an INT8 model whose gate did not pass; every result says so.",
)
bundle_argument = click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE")


def example(*commands: str) -> str:
    """Return the epilog of a command's help: its examples, one a line."""
    return "\b\nExample:\n" + "\n".join(f"  {command}" for command in commands)
