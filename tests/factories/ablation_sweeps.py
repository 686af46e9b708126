"""Worlds for tests: ablation sweeps."""

import math

from analysis.ablations.answer import Answer, Effect, Ruling, Verdict
from analysis.ablations.questions import FigureSpec
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
    empty = {"why": "", "design": "", "base": "tiny", "verdicts": (), "effects": (), "table": ("math.drop",), "seeds": 3}
    whole = {"name": "q", "title": "T", "question": "Q?", "sweep": sweep, "figures": figures, "caveats": ()} | empty
    return Answer(**(whole | more))


def figured(name, title, x, y, **more):
    return FigureSpec(name=name, title=title, x=x, y=y, **more)


DOSE = [
    ({"data.replay.share": 0.0, "data.replay.source": None}, (20, 20)),
    ({"data.replay.share": 0.1, "data.replay.source": "gsm8k"}, (21, 36)),
    ({"data.replay.share": 0.5, "data.replay.source": "gsm8k"}, (19, 38)),
    ({"data.replay.share": 0.5, "data.replay.source": "self"}, (20, 30)),
    ({"data.replay.share": 0.1, "data.replay.source": "self"}, (20, 25)),
]


BY_SOURCE = figured("dose", "Dose", "data.replay.share", ("math.drop", "commonsense.gain"), by=("data.replay.source",))


NAN = math.nan
HALVED = Effect(
    "halved", "rise of bits minus half", "bits a byte", -0.0312, -0.0551, -0.0071, 0.01, (-0.03, -0.042, -0.0213), 100
)
KEPT = Effect("kept", "commonsense kept", "points", 0.0123, -0.0211, 0.0457, 0.015, (0.011, 0.023), 250)
SHARE = Effect("share", "share that is corpus", "share", 0.634, 0.21, 0.9, NAN, (0.1,) * 9, 0)
MISSING = Effect("gone", "what was not run", "points", NAN, NAN, NAN, NAN, (), 0)


def verdicts():
    return (
        Verdict("Is it halved?", "yes", "Yes: by it.", (Ruling(HALVED, "below", 0.0, True, 0.913, None),), "Another interval."),
        Verdict("Is it kept?", "cannot tell", "It is open.", (Ruling(KEPT, "above", -0.005, None, 0.42, 7),), "Seeds."),
        Verdict("Is it there?", "no", "No.", (Ruling(KEPT, "within", 0.02, False, 0.9, None),), "A wider interval."),
        Verdict("Is it run?", "cannot tell", "Unknown.", (Ruling(MISSING, "above", 0.0, None, None, None),), "Trials."),
    )
