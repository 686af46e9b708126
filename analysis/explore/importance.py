"""Effect of settings on metrics: importance, partial dependence, interaction, and bases compared at equal learning.

The trials are those that the search chose: an effect is known best where a sampler proposed most points.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.export.plain import plain
from analysis.metrics.names import LEARNING, split_metric
from analysis.results.sweep import Sweep

Evaluator = Literal["fanova", "ped_anova"]
NEEDED = 12  # complete trials, or PER_SETTING for each setting that varied where that is more
PER_SETTING = 3
ROWS = 1000  # trials for importance and forests; more take minutes and change nothing visible
BAGS, TREES, LEAF = 40, 12, 3  # bootstraps over trials, trees of each, trials in a leaf
GRID = 12  # values of a setting at which dependence is computed
BACKGROUND = 100  # trials over whose other settings dependence is averaged
NORMAL = 1.96
FEW = 5  # trials of a base from which its line is fitted
BOOTSTRAPS = 200  # for the line's interval


def varied(sweep: Sweep) -> list[str]:
    """The searched paths with more than one value among the complete trials, without names of trials."""
    values = {path: list(map(repr, sweep.complete[path])) for path in sweep.space}
    return [path for path in sweep.space if len(set(values[path])) > 1 and not _names(sweep.complete[path])]


def _names(values: pd.Series) -> bool:
    """Whether texts differ in every trial, as the names of imported models do: one says nothing of another trial."""
    return len(values) >= NEEDED and all(isinstance(one, str) for one in values) and values.is_unique


def needed(sweep: Sweep) -> int:
    """Complete trials that `importance`, `dependences` and `interaction` require."""
    return max(NEEDED, PER_SETTING * len(varied(sweep)))


def importance(sweep: Sweep, evaluator: Evaluator = "fanova") -> pd.DataFrame:
    """Share of each searched path in the variance of an objective: a row a path, a column an objective, columns sum to 1.

    "fanova" measures main effects over the whole space in a random forest (Hutter et al. 2014). "ped_anova" measures how the
    best tenth of the trials differs from the others (Watanabe et al. 2023). A path that never varied has 0. A column is NaN
    where its metric never varied or has fewer than `needed` trials.
    """
    return _importance(sweep, evaluator).copy()


@lru_cache(maxsize=2)  # several figures share it
def _importance(sweep: Sweep, evaluator: Evaluator) -> pd.DataFrame:
    table = pd.DataFrame(np.nan, index=pd.Index(sweep.space, name="path"), columns=[one.metric for one in sweep.objectives])
    paths = varied(sweep)
    for objective in sweep.objectives:
        rows = _measured(sweep, objective.metric)
        if paths and len(rows) >= needed(sweep) and rows[objective.metric].nunique() > 1:
            shares = _shares(rows, paths, objective.metric, objective.direction, evaluator)
            table[objective.metric] = [shares.get(path, 0.0) for path in sweep.space]
    return table


def _shares(
    rows: pd.DataFrame, paths: Sequence[str], metric: str, direction: Literal["minimize", "maximize"], evaluator: Evaluator
) -> dict[str, float]:
    import optuna  # takes a second to import

    from analysis.explore.optuna_study import distribution, quiet

    rows = _thinned(rows)
    # without gaps: fANOVA takes trials that all have the same parameters
    filled = {path: without_gaps(rows[path]) for path in paths}
    among = {path: distribution(values) for path, values in filled.items()}
    trials = [
        optuna.trial.create_trial(
            value=float(value),
            params={path: filled[path][place] for path in paths},
            distributions={path: range_ for path, range_ in among.items() if range_ is not None},
        )
        for place, value in enumerate(rows[metric])
    ]
    evaluators = {
        "fanova": lambda: optuna.importance.FanovaImportanceEvaluator(seed=0),
        "ped_anova": lambda: optuna.importance.PedAnovaImportanceEvaluator(),
    }
    with quiet():
        found = optuna.create_study(direction=direction)
        found.add_trials(trials)
        return dict(optuna.importance.get_param_importances(found, evaluator=evaluators[evaluator]()))


def dependences(sweep: Sweep, metric: str, paths: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Partial dependence of `metric` on each path (Friedman 2001, doi:10.1214/aos/1013203451): columns value, mean, low, high.

    Predictions of a random forest, averaged over the trials' other settings, with the 95 % interval over BAGS bootstraps of
    the trials. Values are at most GRID quantiles of the tried numbers, or each text. Empty where the path never varied, or
    fewer than `needed` trials have the metric.
    """
    forests = _forests(sweep, metric)
    found = {path: pd.DataFrame(columns=["value", "mean", "low", "high"]) for path in paths}
    for path in paths:
        if forests is None or path not in forests.paths:
            continue
        values, codes = forests.grid(path)
        means = forests.mean_at({path: codes})
        mean, spread = means.mean(axis=0), NORMAL * means.std(axis=0, ddof=1)
        found[path] = pd.DataFrame({"value": values, "mean": mean, "low": mean - spread, "high": mean + spread})
    return found


def interaction(sweep: Sweep, metric: str, first: str, second: str) -> pd.DataFrame:
    """Partial dependence of `metric` on two paths: index the values of `first`, columns of `second`; empty as `dependences`."""
    forests = _forests(sweep, metric)
    if forests is None or not {first, second} <= set(forests.paths) or first == second:
        return pd.DataFrame()
    (rows, row_codes), (columns, column_codes) = forests.grid(first), forests.grid(second)
    across, down = np.meshgrid(column_codes, row_codes)
    means = forests.mean_at({first: down.ravel(), second: across.ravel()}).mean(axis=0)
    return pd.DataFrame(
        means.reshape(len(rows), len(columns)), index=pd.Index(rows, name=first), columns=pd.Index(columns, name=second)
    )


class _Forests:
    """Random forests of a metric over the settings, one for each bootstrap of the trials.

    Settings are encoded as numbers; a text has the rank of its mean metric, so that one split separates good from bad texts.
    """

    def __init__(self, rows: pd.DataFrame, paths: Sequence[str], metric: str):
        from sklearn.ensemble import RandomForestRegressor

        self.paths = list(paths)
        self._values = {path: without_gaps(rows[path]) for path in paths}
        target = rows[metric].to_numpy(dtype=float)
        self._codes = {path: _codes(values, target) for path, values in self._values.items()}
        settings = np.column_stack([[self._codes[path][value] for value in self._values[path]] for path in self.paths])
        rng = np.random.default_rng(0)
        self._forests = []
        for bag in range(BAGS):
            taken = rng.integers(0, len(rows), len(rows))
            forest = RandomForestRegressor(TREES, min_samples_leaf=LEAF, max_features=1.0, random_state=bag, n_jobs=1)
            self._forests.append(forest.fit(settings[taken], target[taken]))
        # evenly spread over the course of the search, in which a sampler moves
        self._background = settings[np.unique(np.linspace(0, len(rows) - 1, BACKGROUND).round().astype(int))]

    def grid(self, path: str) -> tuple[list[Any], np.ndarray]:
        """Values of the path and their codes, in ascending order where they are numbers."""
        codes = self._codes[path]
        values = list(codes)
        if len(values) > GRID and not isinstance(values[0], str):
            values = sorted(self._values[path])
            values = list(dict.fromkeys(values[place] for place in np.linspace(0, len(values) - 1, GRID).round().astype(int)))
        return values, np.array([codes[value] for value in values])

    def mean_at(self, codes: dict[str, np.ndarray]) -> np.ndarray:
        """Mean prediction (bags, k) with the paths of `codes` set to each of its k combinations."""
        k = len(next(iter(codes.values())))
        settings = np.tile(self._background, (k, 1))
        for path, of_path in codes.items():
            settings[:, self.paths.index(path)] = np.repeat(of_path, len(self._background))
        return np.array([forest.predict(settings).reshape(k, -1).mean(axis=1) for forest in self._forests])


@lru_cache(maxsize=4)
def _forests(sweep: Sweep, metric: str) -> _Forests | None:
    rows, paths = _measured(sweep, metric), varied(sweep)
    return _Forests(_thinned(rows), paths, metric) if paths and len(rows) >= needed(sweep) else None


def _codes(values: Sequence[Any], target: np.ndarray) -> dict[Any, float]:
    """Each distinct value's number, values in ascending order: itself, or a text's rank by its mean target."""
    if not isinstance(values[0], str):
        return {value: float(value) for value in sorted(set(values))}
    means = pd.Series(target).groupby(list(values), sort=True).mean().sort_values(kind="stable")
    place = {value: float(number) for number, value in enumerate(means.index)}
    return {value: place[value] for value in sorted(place)}


def without_gaps(values: pd.Series) -> list[Any]:
    """A setting's values as all numbers or all texts. A missing one is "none", or a tenth of the span below the least."""
    # Missing is a value of its own: the method that needs the setting was not used.
    from analysis.explore.optuna_study import choice

    known = [plain(value) for value in values]
    there = [one for one in known if one is not None]
    if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in there):
        absent = min(there, default=0.0) - 0.1 * ((max(there) - min(there)) or 1.0) if len(there) < len(known) else None
        return [absent if one is None else one for one in known]
    return ["none" if one is None else str(choice(one)) for one in known]


def _measured(sweep: Sweep, metric: str) -> pd.DataFrame:
    split_metric(metric)
    rows = sweep.complete
    return rows[np.isfinite(rows[metric].to_numpy(dtype=float))] if metric in rows else rows.iloc[:0]


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, ROWS).round().astype(int))] if len(rows) > ROWS else rows


# ---------------------------------------------------------------------- bases at equal learning


def bases(sweep: Sweep) -> pd.Series:
    """Name of each trial's base, on the index of `Sweep.trials`: model and quantisation, without the part that all bases share.

    The baseline's key stands in where its record cannot be read, and "" for a point that is no valid trial.
    """
    parts: dict[str, tuple[str, str]] = {}
    for key in filter(None, dict.fromkeys(sweep.trials["baseline"])):
        record = sweep.records.get(key)
        parts[key] = (key, "") if record is None else (record.spec.base.model, str(record.spec.base.quantization))
    differ = [n for n in (0, 1) if len({one[n] for one in parts.values()}) > 1] or [0]
    names = {key: " ".join(one[n] for n in differ) for key, one in parts.items()}
    return sweep.trials["baseline"].map(lambda key: names.get(key, ""))


def matched(sweep: Sweep, metric: str) -> pd.DataFrame:
    """`metric` of each base at equal learning: columns learnt, base, mean, low, high, difference, difference_low and _high.

    A `smooth` line through each base's trials, at GRID levels of the learning gain that all bases reached, with the 95 %
    interval over bootstraps of the trials. `difference` is from the first base at the same level. Empty unless at least two
    bases have FEW trials each and their learning overlaps.
    """
    columns = ["learnt", "base", "mean", "low", "high", "difference", "difference_low", "difference_high"]
    learnt, rows = f"{LEARNING}.gain", _measured(sweep, metric)
    rows = rows[np.isfinite(rows[learnt].to_numpy(dtype=float))] if learnt in rows else rows.iloc[:0]
    named = bases(sweep).loc[rows.index]
    sides = [(name, group) for name, group in rows.groupby(named, sort=False) if len(group) >= FEW]
    if len(sides) < 2:
        return pd.DataFrame(columns=columns)
    # only where the learning of all bases overlaps; beyond that a line extrapolates
    low = max(group[learnt].min() for _, group in sides)
    high = min(group[learnt].max() for _, group in sides)
    if not low < high:
        return pd.DataFrame(columns=columns)
    levels = np.linspace(low, high, GRID)
    lines = {str(name): _lines(group[learnt].to_numpy(), group[metric].to_numpy(), levels) for name, group in sides}
    return pd.concat([_beside_the_first(name, lines, levels) for name in lines], ignore_index=True)[columns]


def _lines(x: np.ndarray, y: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Smooth lines at the levels, shape (1 + BOOTSTRAPS, levels): through all trials, then through bootstraps of them."""
    rng = np.random.default_rng(0)
    found = [smooth(x, y, levels)]
    for _ in range(BOOTSTRAPS):
        taken = rng.integers(0, len(x), len(x))  # trials, not residuals: their spread differs along the line
        found.append(smooth(x[taken], y[taken], levels))
    return np.array(found)


def _beside_the_first(name: str, lines: dict[str, np.ndarray], levels: np.ndarray) -> pd.DataFrame:
    own = lines[name]
    found = {"learnt": levels, "base": name}
    for prefix, line in (("", own), ("difference_", own - next(iter(lines.values())))):
        low, high = np.nanpercentile(line[1:], [2.5, 97.5], axis=0)
        found |= {prefix.rstrip("_") or "mean": line[0], f"{prefix}low": low, f"{prefix}high": high}
    return pd.DataFrame(found)


def smooth(x: np.ndarray, y: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Local linear regression of y (n,) on x (n,) at the levels (k,), tricube weights over the nearest two thirds of points
    (Cleveland 1979, doi:10.1080/01621459.1979.10481038)."""
    near = max(3, int(np.ceil(2 * len(x) / 3)))
    away = np.abs(levels[:, None] - x[None, :])
    reach = np.sort(away, axis=1)[:, min(near, len(x)) - 1]
    weights = (1 - np.clip(away / np.maximum(1.0001 * reach, 1e-12)[:, None], 0, 1) ** 3) ** 3
    total = weights.sum(axis=1)
    x_mean, y_mean = weights @ x / total, weights @ y / total
    from_mean = x[None, :] - x_mean[:, None]
    spread = (weights * from_mean**2).sum(axis=1)
    slope = np.divide((weights * from_mean * y[None, :]).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 1e-12)
    line: np.ndarray = y_mean + slope * (levels - x_mean)
    return line
