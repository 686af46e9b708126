"""Worlds for tests: ablation sweeps."""

from analysis.ablations.answer import Answer, FigureSpec
from tests.factories.sweeps import Builder


def swept(tmp_path, points, **more):
    """A sweep of points (settings, what it got right of commonsense and math) beside a base of 20 and 40."""
    builder = Builder(tmp_path).baseline()
    for n, (settings, right) in enumerate(points):
        builder.add(right, **{name: value[n] for name, value in more.items()})
        builder.trials[-1]["params"] = settings
    return builder.load(space=[])


def asked(sweep, *figures, **more):
    """An answer with nothing but its sweep and its figures."""
    told = {"why": "", "design": "", "base": "tiny", "verdicts": (), "effects": (), "table": ("math.drop",), "seeds": 3}
    whole = {"name": "q", "title": "T", "question": "Q?", "sweep": sweep, "figures": figures, "caveats": ()} | told
    return Answer(**(whole | more))


DOSE = [
    ({"data.replay.share": 0.0, "data.replay.source": None}, (20, 20)),
    ({"data.replay.share": 0.1, "data.replay.source": "gsm8k"}, (21, 36)),
    ({"data.replay.share": 0.5, "data.replay.source": "gsm8k"}, (19, 38)),
    ({"data.replay.share": 0.5, "data.replay.source": "self"}, (20, 30)),
    ({"data.replay.share": 0.1, "data.replay.source": "self"}, (20, 25)),
]


BY_SOURCE = FigureSpec("dose", "Dose", "data.replay.share", ("math.drop", "commonsense.gain"), by=("data.replay.source",))
