"""Coverage of the 95 % intervals of every kind of metric."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.metrics.definitions import CHANGES, JOINT_KINDS
from tests.system.calibration.claims import Claim
from tests.system.calibration.worlds import Bits, Exchanged, Marked, Part, Shares, Suite, answers, measured, truth

SETTINGS = 4  # of one base and the same documents


@dataclass(frozen=True)
class Case:
    what: str
    metric: str
    part: Part | Suite
    shift: float
    n: int
    r: int = 1
    cluster: int = 1
    least: float = 0.93


EVEN = Shares(0.6)
MARKED = Marked(Shares(0.8), Shares(0.6), 1.0, 0.5)
CASES = [
    Case("300 documents", "gain", EVEN, 0.05, 300),
    Case("1,000 documents, 2 % flip", "gain", Shares(0.6, 0.02, 0.04, 0.0, 0.02), 0.01, 1000),
    Case("1,000 documents in pairs", "gain", EVEN, 0.03, 1000, cluster=2),
    Case("150 documents, in fours", "gain", EVEN, 0.1, 148, cluster=4),
    Case("100 documents", "drop", Shares(0.45, 0.2, 0.3), -0.35, 100),
    Case("20 documents", "drop", Shares(0.45, 0.2, 0.3), -0.35, 20),
    Case("300 documents, 1 % lost, none won", "gain", Shares(0.6, 0.0, 0.0, 0.0, 0.0), -0.026, 300),
    Case("one document in ten is lost", "drop", Shares(0.6, 0.0, 0.0, 0.0, 0.0, (0.1, -3.0)), 0.0, 100),
    Case("base 26 %, 200 documents", "forgetting", Shares(0.26, 0.15, 0.2), -0.4, 200),
    Case("base 90 %, 200 documents", "forgetting", Shares(0.9, 0.15, 0.2), -0.4, 200),
    Case("a topic is lost, 100 documents", "forgetting", Shares(0.6, 0.0, 0.0, 0.0, 0.0, (0.1, -3.0)), 0.0, 100),
    Case("200 documents", "value", EVEN, 0.2, 200),
    Case("20 documents", "value", Shares(0.9), 0.0, 20),
    *(
        Case(f"{r} seeds that {how}", "gain", Shares(0.6, 0.1, 0.15, seeds, luck), 0.05, 300, r)
        for r in (2, 3, 5)
        for how, seeds, luck in (
            ("agree", 0.0, 0.0),
            ("are lucky", 0.0, 0.2),
            ("differ", 0.04, 0.1),
            ("differ much", 0.15, 0.1),
        )
    ),
    *(Case(f"{r} seeds that agree, 0.5 % lost", "gain", Shares(0.6, 0.0, 0.0, 0.0, 0.0), -0.013, 200, r) for r in (2, 3, 5)),
    Case("5 seeds that differ", "forgetting", Shares(0.5, 0.15, 0.2, 0.06), -0.3, 300, 5),
    *(Case(f"{n} documents", kind, Exchanged(EVEN), -0.1, n) for kind in CHANGES for n in (20, 100, 300)),
    *(
        Case(f"{n} documents, {shift:+}", kind, Exchanged(EVEN), sign * shift, n)
        for kind, sign in (("lost_adjusted", -1), ("won_adjusted", 1))
        for n in (20, 100, 300)
        for shift in (0.4, 1.0)
    ),
    *(
        Case("1 % lost, 300 documents", kind, Exchanged(Shares(0.6, 0.0, 0.0, 0.0, 0.0)), -0.026, 300)
        for kind in ("lost", "lost_adjusted")
    ),
    *(Case("148 documents in fours", kind, Exchanged(EVEN), -0.1, 148, cluster=4) for kind in ("lost", "lost_adjusted")),
    *(
        Case(f"{r} seeds that {how}", kind, Exchanged(Shares(0.6, 0.1, 0.15, seeds, luck)), shift, 300, r)
        for r in (2, 3, 5)
        for how, seeds, luck in (("agree", 0.0, 0.0), ("are lucky", 0.0, 0.2), ("differ", 0.04, 0.1))
        for kind, shift in (("lost", -0.05), ("lost_adjusted", -1.0))
    ),
    *(Case(f"{n} documents", f"{kind}_forgetting", MARKED, -0.3, n) for kind in ("format", "skill") for n in (12, 50, 200)),
    *(
        Case(
            "few flip, 50 documents",
            f"{kind}_forgetting",
            Marked(Shares(0.8, 0.02, 0.02), Shares(0.6, 0.02, 0.02), 1.0, 0.5),
            -0.03,
            50,
        )
        for kind in ("format", "skill")
    ),
    *(
        Case(f"{len(roles)} roles {how}, {n} documents", kind, Suite(roles), -0.2, n)
        for kind in JOINT_KINDS
        for n in (50, 200)
        for how, roles in (
            ("alike", (EVEN, EVEN)),
            ("alike", (EVEN,) * 5),
            ("apart", (Shares(0.6, topic=(0.3, -1.0)), EVEN, Shares(0.9))),
        )
    ),
    Case("2 roles, one of which is lost alone", "worst_forgetting", Suite((Shares(0.6, topic=(1.0, -0.5)), EVEN)), -0.1, 100),
    *(
        Case(f"3 roles, 3 seeds that differ{much}", kind, Suite((Shares(0.6, seeds=seeds),) * 3), -0.2, 200, 3)
        for kind in JOINT_KINDS
        for much, seeds in (("", 0.04), (" much", 0.3))
    ),
    *(Case("50 and 1,000 documents", kind, Suite((EVEN, EVEN), (1, 20)), -0.2, 50) for kind in JOINT_KINDS),
    Case("2 seeds", "format_forgetting", Marked(Shares(0.8, seeds=0.1), Shares(0.6), 1.0, 0.5), -0.3, 100, 2),
    Case(
        "3 seeds that agree", "skill_forgetting", Marked(Shares(0.8, luck=0.0), Shares(0.6, luck=0.0), 1.0, 0.5), -0.3, 100, 3
    ),
    *(
        # one document in 20 has all of the rise: 50 documents may lack it, which no formula can know
        Case(
            f"{shape}, {n} documents",
            "gold_bpb_delta",
            Bits(shape),
            0.02,
            n,
            least=0.87 if (shape, n) == ("rare", 50) else 0.93,
        )
        for shape in ("even", "skewed", "bimodal", "rare")
        for n in (50, 100, 200, 500)
    ),
    *(Case(f"operators, {n} documents", "gold_bpb_delta", Bits("skewed", 0.1, tokens=3), 0.1, n) for n in (50, 100, 200, 500)),
    Case("100 documents", "gold_bpb", Bits("skewed"), 0.02, 100),
    Case("skewed, 2 seeds", "gold_bpb_delta", Bits("skewed", seeds=0.01), 0.02, 100, 2),
    Case("skewed, 3 seeds that agree", "gold_bpb_delta", Bits("skewed", luck=0.0), 0.02, 100, 3),
]


def coverage(random: np.random.Generator, runs: int) -> Iterator[Claim]:
    """Of `runs` simulated bases each."""
    for case in CASES:
        shifts = np.full(SETTINGS, case.shift)
        true = truth(case.part, case.metric, shifts)
        held, widths = [], []
        for _ in range(runs):
            found = measured(answers(case.part, random, shifts, case.n, case.r, case.cluster), case.metric)
            known = np.isfinite(found.low)
            held.append(np.where(known, (found.low <= true) & (true <= found.high), np.nan))
            widths.append(found.high - found.low)
        share = np.nanmean(held) if np.isfinite(held).any() else np.nan
        width = np.nanmedian(widths) if np.isfinite(widths).any() else np.nan
        yield Claim(f"{case.metric}, {case.what}", 0.95, float(share), least=case.least, note=f"width {width:.4f}")
