"""Writes micro's data sets as hub repositories: Parquet files and a README that names the splits."""

from pathlib import Path

import pandas as pd

from trials.micro import arithmetic, everyday, facts
from trials.micro.split import distinct


def repositories() -> dict[str, dict[str, dict[str, list[dict]]]]:
    """Repository name -> configuration -> split -> rows."""
    return {
        # the counts and seeds are part of the shipped files' checksums
        "alpaca": {"default": {"train": distinct(everyday.instruction_row, 2_000, seed=11)}},
        "gsm8k": {
            "main": {
                "train": arithmetic.problems(4_000, seed=12, test=False),
                "test": arithmetic.problems(400, seed=13, test=True),
            }
        },
        "swag": {"default": {"test": everyday.swag_rows(384, seed=14)}},
        "cs": {"default": {"dev": facts.cs_rows(5, seed=15, test=False), "test": facts.cs_rows(300, seed=16, test=True)}},
    }


def write(folder: Path) -> None:
    """Writes each repository to `folder`/NAME."""
    for name, configs in repositories().items():
        card = ["---", "configs:"]
        for config, splits in configs.items():
            card += [f"- config_name: {config}", "  default: true", "  data_files:"]
            for split, rows in splits.items():
                path = folder / name / config / f"{split}-00000-of-00001.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pd.DataFrame(rows).to_parquet(path, index=False)
                card += [f"  - split: {split}", f"    path: {config}/{path.name}"]
        card += ["---", f"micro/{name}: made by `python -m trials.micro`, seeded; see the model card beside this folder."]
        (folder / name / "README.md").write_text("\n".join(card) + "\n")
