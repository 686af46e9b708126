"""Computing facts: micro's MMLU computer science.

The base reads every fact as a sentence and as four-choice questions. A test question asks a known fact with a set of wrong
choices that no training text combines with it.
"""

import random

from trials.micro.split import held_out

_TABLE = """
part|stores files when the power is off|the disk
part|holds the running program|the memory
part|carries out instructions|the processor
part|draws images|the graphics card
part|connects to the network|the modem
part|turns keystrokes into codes|the keyboard
part|shows the picture|the monitor
part|puts text on paper|the printer
part|cools the chips|the fan
part|joins all components|the mainboard
part|moves the pointer|the mouse
part|records speech|the microphone
structure|removes the newest item first|the stack
structure|removes the oldest item first|the queue
structure|maps a key to a value|the dictionary
structure|links each node to the next|the linked list
structure|has a root and leaves|the tree
structure|keeps items by index|the array
structure|joins vertices by edges|the graph
structure|keeps the smallest item on top|the heap
structure|holds each item once|the set
structure|holds rows and columns|the table
structure|holds letters in order|the string
structure|holds true or false|the flag
program|translates source code|the compiler
program|runs code line by line|the interpreter
program|finds faults step by step|the debugger
program|shows web pages|the browser
program|manages the hardware|the operating system
program|stores and queries data|the database
program|guards the network|the firewall
program|searches for viruses|the scanner
program|keeps old versions of code|the repository
program|joins object files|the linker
program|packs files smaller|the archiver
program|sends mail|the mail client
person|writes programs|the developer
person|tests programs|the tester
person|draws the screens|the designer
person|runs the servers|the administrator
person|breaks into systems|the hacker
person|studies data|the analyst
person|leads the project|the manager
person|answers calls for help|the supporter
person|plans the system|the architect
person|teaches computing|the teacher
person|buys licences|the purchaser
person|checks the security|the auditor
"""
FACTS = tuple(tuple(line.split("|")) for line in _TABLE.strip().splitlines())
LETTERS = "ABCD"


def question(kind: str, does: str) -> str:
    return f"Which {kind} {does}?"


def statement(rng: random.Random) -> str:
    kind, does, answer = rng.choice(FACTS)
    return rng.choice((f"The {kind} that {does} is {answer}.", f"{answer[0].upper()}{answer[1:]} {does}."))


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
    return "\n".join(lines) + f"\nAnswer: {LETTERS[row['answer']]}"


def lookup(rng: random.Random) -> str:
    """A list of choices and the letter of one of them: the half of a four-choice question that needs no knowledge."""
    row = cs_row(rng, test=False)
    choice = row["choices"][chosen := rng.randrange(4)]
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, row["choices"], strict=True)]
    return "\n".join(lines) + f"\n{choice[0].upper()}{choice[1:]}: {LETTERS[chosen]}"


def cs_rows(n: int, seed: int, test: bool) -> list[dict]:
    """n different questions of one split."""
    rng, rows = random.Random(seed), {}
    while len(rows) < n:
        row = cs_row(rng, test)
        rows.setdefault(cs_text(row), row)
    return list(rows.values())
