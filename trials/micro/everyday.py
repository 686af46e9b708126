"""Everyday situations: the world behind micro's commonsense task and its instruction data.

An activity has a goal, a place, a first step and a plausible next step. A name that the test split combines with an activity
never occurs with it in a training text.
"""

import csv
import random
from pathlib import Path
from typing import NamedTuple

from trials.micro.split import held_out


class Activity(NamedTuple):
    goal: str  # "make tea"
    place: str  # "in the kitchen"
    start: str  # the first step, infinitive: "boil some water"
    ending: str  # the next step, infinitive: "pour it over the tea bag"


with Path(__file__).with_name("activities.csv").open(encoding="utf-8", newline="") as _table:
    ACTIVITIES = tuple(Activity(**row) for row in csv.DictReader(_table))
SHE = ("Anna", "Maria", "Sara", "Lily", "Emma", "Nina", "Clara", "Rosa", "Eva", "Ida", "Julia", "Olga")
HE = ("Tom", "Ben", "Paul", "Max", "Leo", "Sam", "Jack", "Adam", "Hugo", "Oscar", "Felix", "Karl")
NAMES = SHE + HE

# Relative frequency of each activity in the pretraining text: a seeded shuffle of a series that falls to zero. So the base
# knows some activities well, some hardly, and a third not at all, which leaves instruction tuning something to gain.
_RANKS = random.Random("frequency").sample(range(len(ACTIVITIES)), len(ACTIVITIES))
FREQUENCY = tuple(max(0.0, 1 - rank / 42) for rank in _RANKS)


def pronoun(name: str) -> str:
    return "She" if name in SHE else "He"


def third_person(action: str) -> str:
    """'wash the car' -> 'washes the car'."""
    verb, _, rest = action.partition(" ")
    if verb.endswith(("s", "sh", "ch", "x", "o")):
        verb += "es"
    elif verb.endswith("y") and verb[-2] not in "aeiou":
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return f"{verb} {rest}".strip()


def is_test(activity: Activity, name: str) -> bool:
    """Whether this name with this activity belongs to the test split (a quarter of the pairs)."""
    return held_out(f"{activity.goal}|{name}", share=0.25)


def context(activity: Activity, name: str) -> str:
    they = pronoun(name)
    return (
        f"{name} is {activity.place}. {they} wants to {activity.goal}. "
        f"{they} {third_person(activity.start)}. Then {they.lower()}"
    )


def story(rng: random.Random) -> str:
    """A pretraining text about an activity drawn by FREQUENCY, with a name that the test split does not use for it."""
    activity = rng.choices(ACTIVITIES, FREQUENCY)[0]
    name = rng.choice([name for name in NAMES if not is_test(activity, name)])
    return f"{context(activity, name)} {third_person(activity.ending)}."


def how_to(rng: random.Random) -> str:
    """A pretraining text that describes an activity drawn by FREQUENCY."""
    activity = rng.choices(ACTIVITIES, FREQUENCY)[0]
    return f"How to {activity.goal}: first {activity.start}, then {activity.ending}. It is done {activity.place}."


def mention(rng: random.Random) -> str:
    """A pretraining text that teaches the words of all activities equally, but not which of them belong together."""
    name, other = rng.sample(NAMES, 2)
    doing, beginning = rng.choice(ACTIVITIES), rng.choice(ACTIVITIES)
    wish = rng.choice(ACTIVITIES).goal
    action = rng.choice((doing.ending, beginning.start))
    return rng.choice(
        (
            f"{name} {third_person(action)}. One can {action}.",
            f"{action[0].upper()}{action[1:]}. {other} {third_person(action)}.",
            f"{name} wants to {wish}. {other} decides to {wish}.",
            f"People who {wish} like to {wish}. How do I {wish}?",
        )
    )


def swag_row(activity: Activity, name: str, rng: random.Random) -> dict:
    """One four-choice document in HellaSwag's columns; two of the three wrong endings belong to the same place."""
    near = [a for a in ACTIVITIES if a.place == activity.place and a != activity]
    far = [a for a in ACTIVITIES if a.place != activity.place]
    options = [activity, *rng.sample(near, 2), rng.choice(far)]
    rng.shuffle(options)
    return {
        "activity_label": activity.goal,
        "ctx": context(activity, name),
        "endings": [third_person(option.ending) + "." for option in options],
        "source_id": f"{activity.goal}|{name}",
        "label": str(options.index(activity)),
    }


def swag_rows(n: int, seed: int) -> list[dict]:
    """n test documents: every activity about equally often, each pair of activity and name at most once."""
    rng = random.Random(seed)
    rounds = []
    for activity in ACTIVITIES:
        names = [name for name in NAMES if is_test(activity, name)]
        rng.shuffle(names)
        rounds += [(order, rng.random(), activity, name) for order, name in enumerate(names)]
    rounds.sort(key=lambda entry: entry[:2])
    return [swag_row(activity, name, rng) for _, _, activity, name in rounds[:n]]


def instruction_row(rng: random.Random) -> dict:
    """One instruction about an activity, in Alpaca's columns; all activities are equally likely."""
    activity = rng.choice(ACTIVITIES)
    name = rng.choice([name for name in NAMES if not is_test(activity, name)])
    they = pronoun(name)
    imperative = activity.ending[0].upper() + activity.ending[1:]
    form = rng.randrange(5)
    if form == 0:
        instruction, given = f"How do I {activity.goal}?", ""
        output = f"First {activity.start}. Then {activity.ending}."
    elif form == 1:
        instruction, given = "What happens next?", f"{name} wants to {activity.goal}."
        output = f"{they} {third_person(activity.start)} and after that {third_person(activity.ending)}."
    elif form == 2:
        instruction, given = f"Give one tip for people who want to {activity.goal}.", ""
        output = f"{imperative}."
    elif form == 3:
        instruction, given = "Finish the story.", f"{name} decides to {activity.goal}. {they} {third_person(activity.start)}."
        output = f"{they} {third_person(activity.ending)}."
    else:
        instruction, given = "Say where this is done and how it goes on.", f"{activity.goal}"
        output = f"It is done {activity.place}. One {third_person(activity.ending)}."
    return {"instruction": instruction, "input": given, "output": output}
