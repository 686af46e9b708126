"""A folder of somebody's own lm-eval tasks, tests/factories/shop, and roles on it."""

import shutil
from pathlib import Path
from typing import Any

from trials.spec import Evaluation

SHOP = Path(__file__).with_name("shop")
SUMS = {"task": "shop_sums", "metric": "exact_match", "filter": "total"}
CHOICES = {"task": "shop_choices", "metric": "acc"}
DISTANCE = {"task": "shop_distance", "metric": "distance", "trust_code": True}
NOTES = {"task": "shop_notes", "metric": "word_perplexity"}


def shop(folder: Path) -> Path:
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(SHOP, folder / "shop", ignore=shutil.ignore_patterns("__pycache__")))


def role(fields: dict[str, Any], include: Path = SHOP) -> Evaluation:
    return Evaluation.model_validate({**fields, "include": str(include)})
