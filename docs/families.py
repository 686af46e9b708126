"""Draws docs/families.png and prints docs/families.md's table from the two sweeps of configs/families*.yaml.

`python docs/families.py runs` after `slimsweep run configs/families.yaml` and `slimsweep run configs/families-strength.yaml`.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from analysis.results.load import load
from analysis.results.manifest import Manifest
from analysis.stats.estimate import learning

KNOBS = {
    "train.learning_rate": "learning rate",
    "lora.rank": "rank",
    "data.samples": "rows",
    "train.kl": "KL to the base",
    "train.l2": "L2 on B A",
    "data.replay.share": "replay",
    "train.loss": "loss",
    "lora.method": "method",
    "lora.target_modules": "rsLoRA on the MLP",
    "derive.strength": "strength",
    "derive.shallow": "first block's share of the strength",
}
RATE = "train.learning_rate"
COLUMNS = ("commonsense.gain", "math.forgetting", "learning.gain", "learning.kl", "math.gold_bpb_delta")


def families(storage: Path) -> pd.DataFrame:
    """A row per point: family, value, and of each metric mean and standard deviation between seeds."""
    trials = load(storage / "families").trials
    standard = trials.iloc[0]
    rows = [_row("reference", "", standard)]
    for _, trial in trials.iloc[1:].iterrows():
        rows.append(_row(*_named(trial, standard), trial))
    for _, trial in load(storage / "families-strength").trials.iterrows():
        for path in ("derive.strength", "derive.shallow"):
            if not pd.isna(trial[path]) and trial[path] != 1:
                rows.append(_row(KNOBS[path], f"{trial[path]:g}", trial))
    return pd.DataFrame(rows)


def _named(trial: pd.Series, standard: pd.Series) -> tuple[str, str]:
    """Family and value of a point: what it has otherwise than the standard, and its learning rate if it has another."""
    changed = [path for path in KNOBS if path in trial and trial[path] != standard[path]]
    path = next((path for path in changed if path != RATE), RATE)
    name, value = KNOBS[path], trial[path]
    if name == "replay":
        name += " of its own text" if trial["data.replay.source"] == "self" else " of problems"
    if isinstance(value, str):
        shown = f"{trial[RATE]:g}"
        return (name if path == "lora.target_modules" else f"{name} {value}"), f"learning rate {shown}"
    return name, f"{value:g}"


def _row(family: str, value: str, trial: pd.Series) -> dict:
    found = {"family": family, "value": value, "state": trial["state"]}
    return found | {f"{name}{part}": trial.get(f"{name}{part}") for name in COLUMNS for part in ("", "_sd")}


def below(storage: Path) -> dict[str, np.ndarray]:
    """Point -> (seeds,) how much less it forgets than the learning-rate curve of the same seed does at equal learning.gain.

    NaN where it learns less or more than every point of the curve.
    """
    points: dict[str, np.ndarray] = {}
    curve = []
    standard = Manifest.read(load(storage / "families").folder).trials[0].params
    for name in ("families", "families-strength"):
        sweep = load(storage / name)
        for trial in Manifest.read(sweep.folder).trials:
            base = sweep.records[trial.baseline or ""].scores["math"].value
            records = [sweep.records[key] for key in trial.keys]
            gains = [one for record in records if (one := learning(record)["gain"]) is not None]
            found = np.array([gains, [1 - record.scores["math"].value / base for record in records]])
            changed = {path: value for path, value in trial.params.items() if value != standard.get(path)}
            if name == "families" and set(changed) <= {RATE}:
                curve.append(found)
            else:
                points[", ".join(f"{path.partition('.')[2]} {value}" for path, value in changed.items())] = found
    rates = np.array(sorted(curve, key=lambda one: one[0].mean()))
    return {
        told: np.array(
            [
                np.interp(gain, rates[:, 0, seed], rates[:, 1, seed], left=np.nan, right=np.nan) - forgotten
                for seed, (gain, forgotten) in enumerate(one.T)
            ]
        )
        for told, one in points.items()
    }


def main(storage: Path) -> None:
    frame = families(storage)
    for told, found in below(storage).items():
        print(f"{told}: below the learning-rate curve by {np.round(found, 2)}, mean {found.mean():.3f}")
    print("| family | value | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 2))
    for _, row in frame.iterrows():
        cells = [f"{row[name]:+.3f} (sd {row[f'{name}_sd']:.3f})" for name in COLUMNS]
        print(f"| {row['family']} | {row['value']} | " + " | ".join(cells) + " |")
    figure, panel = plt.subplots(figsize=(10, 5.2), constrained_layout=True)
    reference = frame[frame["family"] == "reference"]
    for number, (family, part) in enumerate(frame[frame["family"] != "reference"].groupby("family", sort=False)):
        # the reference is a point of every family but those of other losses and adapters
        another = part["value"].str.startswith("learning rate").all()
        curve = (part if another else pd.concat([part, reference])).sort_values("learning.gain")
        look = {"linestyle": "--", "marker": "s"} if another else {"linestyle": "-", "marker": "o"}
        width = 3.0 if family == "learning rate" else 1.3
        panel.plot(
            curve["learning.gain"], curve["math.forgetting"], color=plt.cm.tab20(number), linewidth=width, label=family, **look
        )
    panel.set(xlabel="learning.gain (nats per token)", ylabel="math.forgetting")
    figure.legend(loc="outside right upper", fontsize=9)
    figure.savefig(Path(__file__).with_name("families.png"), dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
