"""A fresh process of `end_to_end.py`: one contestant, from nothing to its first result.

    python benchmarks/end_to_end_child.py NAME MATERIAL.json PICTURE...

One JSON line a stage on stdout: peak resident memory in MiB after the imports, after opening,
after the first picture, after all of them. The parent takes the time at which a line arrives.
"""

import json
import sys


def peak_mib() -> float:
    """Largest resident set of this process so far (VmHWM), in MiB."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def say(stage: str, **more: object) -> None:
    """Print one line and flush it."""
    sys.stdout.write(json.dumps({"stage": stage, "peak_mib": round(peak_mib(), 1), **more}) + "\n")
    sys.stdout.flush()


class Fields:
    """Attributes from JSON, without importing what writes it."""

    def __init__(self, values: dict) -> None:
        """Take over every key."""
        self.__dict__.update(values)


def main() -> None:
    """Open the contestant, give it the pictures, say how much memory it took."""
    name, material_path, *pictures = sys.argv[1:]
    say("python")
    with open(material_path, encoding="utf-8") as file:  # noqa: PTH123
        material = Fields(json.load(file))
    from end_to_end_pipelines import open_contestant

    if name.startswith("ours"):
        import cv2  # noqa: F401
        import numpy as np  # noqa: F401

        say("numpy and OpenCV")
        import onnxruntime  # noqa: F401

        say("onnxruntime")
    contestant = open_contestant(name, material)
    say("open")
    for number, path in enumerate(pictures):
        with open(path, "rb") as file:  # noqa: PTH123
            reached = bool(contestant.reached(contestant.run(file.read())))
        if number == 0:
            say("first result", reached=reached)
    say("last result")


if __name__ == "__main__":
    main()
