"""Samplers behind one interface: ours, and those of others as their authors recommend them."""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import optuna

from analysis.metrics.names import parse_constraint
from orchestrator.config.model import SweepConfig
from orchestrator.search import optuna_space
from orchestrator.search.evidence import BASE, ERRORS
from orchestrator.search.sampler import ask, make_sampler

OURS = ("auto", "gp", "tpe", "nsga2", "random")


class Searcher(Protocol):
    def ask(self) -> tuple[Any, dict[str, Any]]:
        """(a trial, its settings)."""

    def tell(self, trial: Any, metrics: dict[str, float], errors: dict[str, float]) -> None: ...


class InOptuna:
    """A study in memory; `sampler` is None for our own, by the config's name."""

    def __init__(self, config: SweepConfig, sampler: optuna.samplers.BaseSampler | None):
        self._config, self._ours = config, sampler is None
        self.study = optuna.create_study(directions=[one.direction for one in config.search.objectives], sampler=sampler)
        self._constraints = {text: parse_constraint(text) for text in config.search.constraints}
        self._seen: list[dict[str, Any]] = []
        if sampler is None:
            self.study.sampler = make_sampler(config, 0, self._seen.__contains__)
            self.study.set_user_attr(f"{BASE}none", [0.0] * len(config.search.objectives))

    def ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        trial = ask(self.study) if self._ours else self.study.ask()
        assert trial is not None
        settings = optuna_space.suggest(self._config, trial)
        self._seen.append(settings)
        return trial, settings

    def tell(self, trial: optuna.Trial, metrics: dict[str, float], errors: dict[str, float]) -> None:
        for name, constraint in self._constraints.items():
            trial.set_constraint(name, constraint.violation(metrics[constraint.metric]))
        values = [metrics[one.metric] for one in self._config.search.objectives]
        if self._ours:
            trial.set_user_attr(ERRORS, errors)
            gain, forgetting = values
            trial.set_constraint("base", min(-gain, forgetting))
        self.study.tell(trial, values)


class BoTorch:
    """BoTorch's tutorial of constrained, noisy, parallel multi-objective optimisation: qLogNEHVI, observed variances."""

    def __init__(self, config: SweepConfig, seed: int, reference: np.ndarray):
        from orchestrator.search.design import Cube

        self._config, self._cube, self._seed = config, Cube(config), seed
        self._reference = -reference  # BoTorch maximises
        self._pending: dict[int, np.ndarray] = {}
        self._known: list[tuple[np.ndarray, list[float], list[float]]] = []
        self._asked = 0
        constraint = parse_constraint(config.search.constraints[0])
        self._constraint = constraint

    def ask(self) -> tuple[int, dict[str, Any]]:
        d = len(self._cube.names)
        units = self._cube.sobol(self._seed, self._asked + 1)[-1] if self._asked < 2 * (d + 1) else self._optimised()
        self._asked += 1
        params, settings = self._cube.point(units, {})
        self._pending[self._asked] = self._cube.units(params)  # a rounded value is observed where it lies
        return self._asked, settings

    def _optimised(self) -> np.ndarray:
        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from botorch.sampling import SobolQMCNormalSampler
        from gpytorch.mlls import SumMarginalLogLikelihood

        torch.manual_seed(self._seed + self._asked)
        x = torch.tensor(np.array([row for row, _, _ in self._known]))
        y = torch.tensor(np.array([row for _, row, _ in self._known]))
        variance = torch.tensor(np.array([row for _, _, row in self._known])).clamp_min(1e-6)
        models = [
            SingleTaskGP(x, y[:, i : i + 1], variance[:, i : i + 1], outcome_transform=Standardize(m=1)) for i in range(3)
        ]
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=self._reference.tolist(),
            X_baseline=x,
            X_pending=torch.tensor(np.array(list(self._pending.values()))) if self._pending else None,
            sampler=SobolQMCNormalSampler(torch.Size([128]), seed=self._seed),
            prune_baseline=True,
            objective=IdentityMCMultiOutputObjective(outcomes=[0, 1]),
            constraints=[lambda found: found[..., 2]],
        )
        box = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).double()
        found, _ = optimize_acqf(
            acquisition, bounds=box, q=1, num_restarts=4, raw_samples=256, options={"batch_limit": 4, "maxiter": 100}
        )
        return found[0].numpy().clip(0, 1 - 1e-9)

    def tell(self, trial: int, metrics: dict[str, float], errors: dict[str, float]) -> None:
        gain, forgetting = (one.metric for one in self._config.search.objectives)
        names = (gain, forgetting, self._constraint.metric)
        values = [metrics[gain], -metrics[forgetting], self._constraint.violation(metrics[self._constraint.metric])]
        self._known.append((self._pending.pop(trial), values, [errors[name] ** 2 for name in names]))


def searcher(name: str, make: Callable[[str], SweepConfig], seed: int, reference: np.ndarray) -> Searcher:
    """`make` makes the config with one of our samplers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name in OURS:
            return InOptuna(make(name), None)
        if name == "optuna-tpe":
            return InOptuna(make("random"), optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True))
        if name == "optuna-gp":
            return InOptuna(make("random"), optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False))
    if name == "botorch":
        return BoTorch(make("random"), seed, reference)
    raise ValueError(f"no sampler {name}")
