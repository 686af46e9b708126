"""Everyday situations: the world behind micro's commonsense task and its instruction data.

An activity is a goal, where it happens, how it begins and how it plausibly goes on. The base meets the activities with very
different frequencies while it is pretrained (`FREQUENCY`), so it knows some well, some hardly and some not at all: that is the
room which instruction tuning has for a gain. A name that the test split uses for an activity never occurs with it in a training
text.
"""

import random
from typing import NamedTuple

from trials.micro.split import held_out


class Activity(NamedTuple):
    goal: str  # "make tea"
    place: str  # "in the kitchen"
    start: str  # what one does first, infinitive: "boil some water"
    ending: str  # what one does next, infinitive: "pour it over the tea bag"


_TABLE = """
make tea|in the kitchen|boil some water|pour it over the tea bag
bake bread|in the kitchen|knead the dough|let it rise in a warm bowl
cook pasta|in the kitchen|fill a pot|drop the noodles into the bubbling water
wash the dishes|in the kitchen|fill the sink|scrub the plates with a sponge
make a salad|in the kitchen|rinse the lettuce|toss the leaves with oil
fry an egg|in the kitchen|heat the pan|crack the shell on the edge
make toast|in the kitchen|slice the loaf|spread butter on the warm slice
peel potatoes|in the kitchen|pick a peeler|remove the skin in long strips
make soup|in the kitchen|chop the carrots|stir the broth with a ladle
squeeze a lemon|in the kitchen|cut it in half|catch the juice in a glass
brush the teeth|in the bathroom|open the toothpaste|rinse the mouth with water
take a bath|in the bathroom|open the tap|step into the warm tub
wash the hair|in the bathroom|wet it|work the shampoo into a foam
shave|in the bathroom|apply the cream|pull the razor down the cheek
dry the hair|in the bathroom|plug in the dryer|move the hot air over the head
trim the nails|in the bathroom|find the clipper|file the sharp corners smooth
mow the lawn|in the garden|start the mower|walk in straight lines over the grass
plant a tree|in the garden|dig a hole|set the roots into the earth
water the flowers|in the garden|fill the can|sprinkle the dry beds
rake the leaves|in the garden|get the rake|gather them into a pile
pick apples|in the garden|lean the ladder on the trunk|put the ripe fruit into a basket
pull the weeds|in the garden|put on gloves|tug each stem out by the root
build a snowman|in the garden|roll a big ball|stick a carrot in as the nose
feed the birds|in the garden|open the bag of seeds|scatter the grain on the tray
wash the car|in the street|bring a bucket|hose the foam off the hood
ride a bicycle|in the street|put on a helmet|push the pedals
change a tire|in the street|lift the car with a jack|loosen the nuts with a wrench
wait for the bus|in the street|look at the timetable|wave at the driver
cross the road|in the street|look left and right|walk over the white stripes
shovel the snow|in the street|button up the coat|clear a path to the gate
paint a fence|in the street|open the can|brush the boards from top to bottom
walk the dog|in the street|fasten the leash|follow it around the block
read a story|in the bedroom|choose a book|turn to the first page
go to sleep|in the bedroom|put on pyjamas|switch off the lamp
make the bed|in the bedroom|shake the pillow|pull the sheet tight
pack a suitcase|in the bedroom|fold the shirts|close the zipper
iron a shirt|in the bedroom|heat the iron|press the collar flat
tie the shoes|in the bedroom|cross the laces|form a loop with a knot
wake up early|in the bedroom|set the alarm|open the curtains at sunrise
sew a button|in the bedroom|thread the needle|stitch it onto the cloth
play the piano|in the living room|sit on the stool|press the black and white keys
watch a film|in the living room|dim the light|sink into the sofa
light a fire|in the living room|stack the logs|strike a match
knit a scarf|in the living room|choose the wool|click the two needles together
clean the floor|in the living room|plug in the vacuum|push the nozzle under the table
wrap a present|in the living room|cut the paper|tape the folded ends
play chess|in the living room|set up the board|move a pawn forward
hang a picture|in the living room|hammer a nail|level the frame by eye
catch a fish|at the lake|put a worm on the hook|reel in the line
row a boat|at the lake|untie the rope|dip the oars
go swimming|at the lake|take off the shoes|dive from the pier
put up a tent|at the lake|unroll the canvas|drive the pegs into the ground
skip stones|at the lake|find a flat pebble|fling it low across the surface
grill sausages|at the lake|light the coal|flip them with tongs
fly a kite|at the lake|unwind the string|run against the wind
watch the ducks|at the lake|sit on the bench|throw crumbs onto the pond
buy vegetables|at the market|choose some onions|pay at the counter
try on a coat|at the market|take it off the hanger|check the sleeves in the mirror
sell flowers|at the market|arrange the bunches|call out the price
taste cheese|at the market|ask for a piece|chew it slowly
carry the shopping|at the market|fill two bags|hold one in each hand
sharpen a knife|at the market|find the whetstone|slide the blade along it
return a sweater|at the market|show the receipt|take the refund
order a cake|at the market|look at the pictures|point at the one with cherries
"""
ACTIVITIES = tuple(Activity(*line.split("|")) for line in _TABLE.strip().splitlines())
SHE = ("Anna", "Maria", "Sara", "Lily", "Emma", "Nina", "Clara", "Rosa", "Eva", "Ida", "Julia", "Olga")
HE = ("Tom", "Ben", "Paul", "Max", "Leo", "Sam", "Jack", "Adam", "Hugo", "Oscar", "Felix", "Karl")
NAMES = SHE + HE

# Relative frequency of each activity in the pretraining text: a seeded shuffle of a series that falls to nothing, so that the
# base knows some activities well, some hardly, and has never met a third of them.
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
    """A pretraining text that tells how an activity, drawn by FREQUENCY, is done."""
    activity = rng.choices(ACTIVITIES, FREQUENCY)[0]
    return f"How to {activity.goal}: first {activity.start}, then {activity.ending}. It is done {activity.place}."


def mention(rng: random.Random) -> str:
    """A pretraining text that teaches the words of every activity equally, and not which of them belong together."""
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
    """One four-choice document in HellaSwag's columns; the wrong endings are other activities', two of the same place."""
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
