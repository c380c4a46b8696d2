"""`python -m edge_runtime` is the `edge-screen` command."""

from __future__ import annotations

from edge_runtime.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="edge-screen")
