"""Worlds for tests: sweeps."""

import json
import math
from html.parser import HTMLParser

import pandas as pd
import pytest

from analysis.results.load import load
from trials.ledger.record import Failure, Ledger, Score, TrialRecord
from trials.ledger.storage import write_text
from trials.spec import TrialSpec

NASTY = """<script>alert("1")</script> & $x_{'2'}$ "quoted" \N{SNOWMAN}"""
WORSE = (
    "a|b \\ {c}_$d$ 50% #1 ~^ [link](http://x.y) www.x.y me@x.y ![i](j) `code` *b*\n| --- |\r\n\\end{tabular} \u2028<b>&amp;"
)

TWO = [{"metric": "commonsense.gain", "direction": "maximize"}, {"metric": "math.forgetting", "direction": "minimize"}]


FOUR = [*TWO, {"metric": "math.value", "direction": "maximize"}, {"metric": "commonsense.drop", "direction": "minimize"}]


DOCUMENTS = 50


class Builder:
    """Writes a storage root: a baseline, and trials of which each is given what it got right of DOCUMENTS documents."""

    roles = ("commonsense", "math")

    def __init__(self, root):
        self.ledger, self.folder = Ledger(root), root / "quickstart"
        self.trials = []
        self.base = self.spec(8).baseline()

    def spec(self, rank, rate=2e-4, seed=0):
        return TrialSpec.model_validate(
            {
                "base": {"model": "micro"},
                "data": {"samples": 64, "mix": {"alpaca": 1.0}, "seed": seed},
                "lora": {"rank": rank},
                "train": {"learning_rate": rate},
                "eval": {role: {"task": f"{role}_task", "metric": "acc"} for role in self.roles},
            }
        )

    def record(self, spec, right, documents=True, **more):
        rows = [
            {
                "role": role,
                "task": "t",
                "doc_id": n,
                "doc_hash": f"{role}{n}",
                "score": float(n < count),
                "target": "",
                "response": "",
            }
            for role, count in zip(self.roles, right, strict=True)
            for n in range(DOCUMENTS)
        ]
        scores = {}
        for role, count in zip(self.roles, right, strict=True):
            share = count / DOCUMENTS
            scores[role] = Score(value=share, stderr=math.sqrt(share * (1 - share) / (DOCUMENTS - 1)), n=DOCUMENTS)
        facts = {
            "seconds": {"train": 2.0, "evaluate": 3.5},
            "versions": {"torch": "2.9.0"},
            "hardware": {"device": "cpu"},
        } | more
        record = TrialRecord(key=spec.key, state="complete", spec=spec, scores=scores, **facts)
        self.ledger.write(record, pd.DataFrame(rows) if documents else None)

    def baseline(self, right=(20, 40)):
        self.record(self.base, right)
        return self

    def add(self, right=None, failure=None, **more):
        number = len(self.trials)
        spec = self.spec(rank=number + 1, rate=1e-4 * (number + 1))
        if right is not None:
            self.record(spec, right, **more)
        if failure is not None:
            self.ledger.write(TrialRecord(key=spec.key, state="failed", spec=spec, failure=failure))
        params = {"lora.rank": number + 1, "train.learning_rate": 1e-4 * (number + 1)}
        self.trials.append({"number": number, "key": spec.key, "baseline": self.base.key, "params": params})
        return self

    def replicate(self, *replicates):
        """A trial of several replicates, each what it got right, a failure, or None for one that has not run yet."""
        number = len(self.trials)
        specs = [self.spec(rank=number + 1, seed=seed) for seed in range(len(replicates))]
        for spec, one in zip(specs, replicates, strict=True):
            if isinstance(one, Failure):
                self.ledger.write(TrialRecord(key=spec.key, state="failed", spec=spec, failure=one))
            elif one is not None:
                self.record(spec, one)
        keys, params = [spec.key for spec in specs], {"lora.rank": number + 1, "train.learning_rate": 2e-4}
        trial = {"number": number, "key": keys[0], "keys": keys, "baseline": self.base.key, "params": params}
        self.trials.append(trial)
        return self

    def invalid(self):
        number = len(self.trials)
        self.trials.append({"number": number, "key": None, "params": {"lora.rank": 3}, "failure": "rank and method contradict"})
        return self

    def load(self, **manifest):
        whole = {
            "schema": 1,
            "name": "quickstart",
            "objectives": TWO,
            "constraints": ["math.forgetting <= 0.10"],
            "space": ["lora.rank", "train.learning_rate"],
            "trials": self.trials,
            "baselines": [self.base.key],
            "budget": 14,
        }
        write_text(self.folder / "sweep.yaml", "name: quickstart\n")
        write_text(self.folder / "manifest.json", json.dumps(whole | manifest))
        return load(self.folder)


SITUATIONS = {
    "usual": lambda b: b.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=oom()).add(),
    "nothing asked": lambda b: b,
    "nothing finished": lambda b: b.add().add(),
    "all failed": lambda b: b.baseline().add(failure=oom()).add(failure=oom()),
    "none feasible": lambda b: b.baseline().add((40, 10)).add((41, 9)),
    "one trial": lambda b: b.baseline().add((20, 40)),
    "equal trials": lambda b: b.baseline().add((25, 40)).add((25, 40)).add((25, 40)),
    "base at zero": lambda b: b.baseline((20, 0)).add((25, 0)),
    "no baseline": lambda b: b.add((26, 37)).add((24, 40)),
    "replicates": lambda b: b.baseline().replicate((26, 37), (25, 39), (27, 38)).replicate((24, 40), oom()).invalid(),
    "long front": lambda b: [b.baseline(), *(b.add((20 + n, 48 - n)) for n in range(20))][0],
}


# the long one takes seconds in every figure
NAMED = [pytest.param(name, marks=pytest.mark.slow) if name == "long front" else name for name in SITUATIONS]


OBJECTIVES = {"one": TWO[:1], "two": TWO, "four": FOUR, "turned": [{"metric": "math.value", "direction": "maximize"}, TWO[0]]}


def oom():
    return Failure(kind="OutOfMemoryError", message=NASTY, traceback=NASTY)


class Page(HTMLParser):
    """What a page refers to, its tags and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.words.append(data)
