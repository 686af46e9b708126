"""Programs in bash that stand for those of another machine."""

from pathlib import Path


def put(folder: Path, **programs: str) -> None:
    """Writes each program, a body of bash, as an executable of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
