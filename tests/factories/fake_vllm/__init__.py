"""A Python with a package `vllm` that has vLLM's interface."""

import os
import sys
from pathlib import Path

FOLDER = str(Path(__file__).parent)


def python(folder: Path, light: bool = False) -> str:
    """A program in `folder` that runs this Python with the fake: one on transformers, or a `light` one without any model."""
    program = folder / "python-with-vllm"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={FOLDER}{"/light" if light else ""} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    assert os.access(program, os.X_OK)
    return str(program)
