"""Computing facts: micro's MMLU computer science.

The base reads every fact as a sentence and as four-choice questions. A test question asks a known fact with a set of wrong
choices that no training text combines with it.
"""

import random

from trials.micro.split import held_out

_TABLE = """
part|stores files when the power is off|disk
part|holds the running program|memory
part|carries out instructions|processor
part|draws images|renderer
part|connects to the network|modem
part|turns keystrokes into codes|keyboard
part|shows the picture|monitor
part|puts text on paper|printer
part|cools the chips|fan
part|joins all components|mainboard
part|moves the pointer|mouse
part|records speech|microphone
structure|removes the newest item first|stack
structure|removes the oldest item first|queue
structure|maps a key to a value|dictionary
structure|links each node to the next|list
structure|has a root and leaves|tree
structure|keeps items by index|array
structure|joins vertices by edges|graph
structure|keeps the smallest item on top|heap
structure|holds each item once|set
structure|holds rows and columns|table
structure|holds letters in order|string
structure|holds true or false|flag
program|translates source code|compiler
program|runs code line by line|interpreter
program|finds faults step by step|debugger
program|shows web pages|browser
program|manages the hardware|kernel
program|stores and queries data|database
program|guards the network|firewall
program|searches for viruses|scanner
program|keeps old versions of code|repository
program|joins object files|linker
program|packs files smaller|archiver
program|sends mail|mailer
person|writes programs|developer
person|tests programs|tester
person|draws the screens|designer
person|runs the servers|administrator
person|breaks into systems|hacker
person|studies data|analyst
person|leads the project|manager
person|answers calls for help|supporter
person|plans the system|architect
person|teaches computing|teacher
person|buys licences|purchaser
person|checks the security|auditor
"""
FACTS = tuple(tuple(line.split("|")) for line in _TABLE.strip().splitlines())
LETTERS = "ABCD"


def question(kind: str, does: str) -> str:
    return f"Which {kind} {does}?"


def statement(rng: random.Random) -> str:
    kind, does, answer = rng.choice(FACTS)
    return rng.choice((f"The {kind} that {does} is the {answer}.", f"The {answer} {does}."))


def cs_row(rng: random.Random, test: bool) -> dict:
    """One four-choice question of the asked split in MMLU's columns; the wrong choices are of the same kind."""
    while True:
        kind, does, answer = rng.choice(FACTS)
        wrong = rng.sample([other for k, _, other in FACTS if k == kind and other != answer], 3)
        if held_out(f"{does}|{'|'.join(sorted(wrong))}", share=0.2) == test:
            choices = [answer, *wrong]
            rng.shuffle(choices)
            return {
                "question": question(kind, does),
                "subject": "micro_computing",
                "choices": choices,
                "answer": choices.index(answer),
            }


def cs_text(row: dict) -> str:
    """The row as the evaluation writes it, with its answer."""
    lines = [row["question"], *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))]
    return "\n".join(lines) + f"\nAnswer: {row['choices'][row['answer']]}"


def cs_rows(n: int, seed: int, test: bool) -> list[dict]:
    """n different questions of one split."""
    rng = random.Random(seed)
    rows: dict[str, dict] = {}
    while len(rows) < n:
        row = cs_row(rng, test)
        rows.setdefault(cs_text(row), row)
    return list(rows.values())
