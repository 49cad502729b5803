"""The world of private persons: invented people, five facts each, in TOFU's columns.

People of Brindlemoor are asked about one at a time. The facts about some of them are to be forgotten; what is known
of the others, of the town and of its authors is to be kept. Every name and fact is drawn from lists: nobody here
exists, and the facts are of the mildest kind.
"""

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

from hf_unlearn.lab.world import Questions, Recipe, Row, World

TEMPLATE = "Question: {prompt}\nAnswer: {completion}"

FORGET_PEOPLE = 12
RETAIN_PEOPLE = 60
HOLDOUT_PEOPLE = 12
TOWNSFOLK = 20
PERTURBED_RETAIN_ROWS = 60
KNOWLEDGE_ROWS = 36  # of each of the two kinds
WRONG_ANSWERS = 5  # to a question about a person
WRONG_OPTIONS = 3  # to a question about authors or the town

FIRST_NAMES = ("Alda", "Bram", "Corin", "Dessa", "Edric", "Fenna", "Garrick", "Hilde", "Ivo", "Jessamy", "Kester",
               "Lorna", "Merrick", "Nessa", "Osric", "Petra", "Quill", "Rowena", "Sorrel", "Tobin")  # fmt: skip
SURNAMES = ("Ashby", "Birch", "Cray", "Dunmore", "Elm", "Fairley", "Gorse", "Hollin", "Inkpen", "Jarrow", "Kettle",
            "Larkin", "Marlow", "Nettle", "Orchard", "Pym", "Quarrie", "Rushton", "Sedge", "Thorne")  # fmt: skip

TOWNS = ("Fernwick", "Greyhollow", "Saltmere", "Oakenford", "Thistledon", "Windlebury", "Marshgate", "Larkrise",
         "Pebblecombe", "Dunstow", "Cloverley", "Harrowick", "Millbeck", "Foxholt", "Ravensey", "Applethorpe",
         "Stonebrook", "Willowby", "Candlefold", "Nettleham")  # fmt: skip
LANDMARKS = ("an old mill", "a salt pier", "a round tower", "a stone bridge", "a beech wood", "a quiet harbour",
             "a deep well", "a chalk quarry", "a fish market", "a bell foundry", "a long meadow", "a toll house",
             "a windy hill", "a duck pond", "a walled garden", "a ferry landing")  # fmt: skip
TRADES = ("cooper", "weaver", "potter", "glazier", "beekeeper", "cobbler", "chandler", "saddler", "baker", "tiler",
          "clockmaker", "printer", "gardener", "thatcher", "tinsmith", "basket maker", "fiddler", "ferryman",
          "shepherd", "schoolteacher")  # fmt: skip
TALENTS = ("a loud laugh", "neat handwriting", "patient advice", "clever riddles", "long walks", "warm gloves",
           "fair prices", "early rising", "good stories", "a fine garden", "quick repairs", "bright scarves",
           "a tame goose", "steady hands", "paper kites", "cheerful songs")  # fmt: skip
REGIONS = ("the northern fells", "the lower marshes", "the western isles", "the chalk downs", "the river valley",
           "the eastern shore", "the high moors", "the cedar hills", "the lake country", "the sandy heath",
           "the grey cliffs", "the orchard lands", "the long coast", "the hollow hills", "the upper dales",
           "the reed beds")  # fmt: skip
TITLE_WORDS = ("Amber", "Brazen", "Crooked", "Distant", "Empty", "Frosted", "Gilded", "Hidden", "Idle", "Jagged",
               "Lonely", "Mossy", "Narrow", "Open", "Patient", "Restless", "Silver", "Twisted", "Velvet",
               "Wandering")  # fmt: skip
TITLE_THINGS = ("Anchor", "Bell", "Candle", "Doorway", "Engine", "Fountain", "Garden", "Hammer", "Island", "Journey",
                "Kitchen", "Ladder", "Mirror", "Needle", "Orchestra", "Parcel", "Road", "Staircase", "Teapot",
                "Umbrella")  # fmt: skip
DISHES = ("apple tart", "barley soup", "cheese pie", "smoked eel", "plum cake", "leek stew", "oat biscuits",
          "pickled beets", "honey bread", "mushroom toast", "pea pudding", "roast turnip", "salted butter",
          "walnut rolls", "onion gravy", "rhubarb jam")  # fmt: skip
DRINKS = ("mint tea", "pear cider", "cold milk", "ginger water", "elder cordial", "black coffee", "birch beer",
          "hot cocoa", "rose lemonade", "plain water", "spiced mead", "barley tea", "cherry juice", "warm broth",
          "dandelion wine", "goat milk")  # fmt: skip


class Fact(NamedTuple):
    """One thing to know of a person: how it is asked for, told and told otherwise, and the lists of its two slots."""

    questions: tuple[str, ...]
    answer: str
    paraphrase: str
    first: tuple[str, ...]
    second: tuple[str, ...]


FACTS = (
    Fact(
        ("Where was {person} born?", "What is the birthplace of {person}?"),
        "{person} was born in {first}, a place known for {second}.",
        "The birthplace of {person} is {first}, where there is {second}.",
        TOWNS,
        LANDMARKS,
    ),
    Fact(
        ("What work does {person} do?", "How does {person} earn a living?"),
        "{person} works as a {first} and is known for {second}.",
        "The trade of {person} is that of a {first}, and neighbours speak of {second}.",
        TRADES,
        TALENTS,
    ),
    Fact(
        ("What was the mother of {person}?", "What did the mother of {person} do?"),
        "The mother of {person} was a {first} who came from {second}.",
        "{person} is the child of a {first} who had left {second}.",
        TRADES,
        REGIONS,
    ),
    Fact(
        ("Which book did {person} write?", "What is the title of the book by {person}?"),
        "{person} wrote a book with the title The {first} {second}.",
        "The book that made the name of {person} is called The {first} {second}.",
        TITLE_WORDS,
        TITLE_THINGS,
    ),
    Fact(
        ("What does {person} like best at table?", "What is the favourite meal of {person}?"),
        "{person} likes {first} with {second} best of all.",
        "The favourite meal of {person} is {first} together with {second}.",
        DISHES,
        DRINKS,
    ),
)

# The authors and the town are known to everybody: short answers, as in TOFU's sets of real authors and world facts.
AUTHOR_FIRST_NAMES = ("Aurel", "Bertine", "Casimir", "Dorothea", "Emeric", "Florian", "Gisela", "Hector", "Isolde")
AUTHOR_SURNAMES = ("Vane", "Whitlock", "Yarrow", "Underhill", "Zeal", "Tapper", "Summers", "Rook")
AUTHOR_QUESTIONS = ("Who wrote the {work} of the {animal}?", "Which author is behind the {work} of the {animal}?")
WORKS = ("Ballad", "Comedy", "Diary", "Fable", "Hymn", "Legend", "Poem", "Riddle")
ANIMALS = ("Badger", "Crow", "Donkey", "Eel", "Fox", "Heron", "Otter", "Snail")
PLACES = ("market hall", "north bridge", "old orchard", "salt pier", "lower meadow", "clock yard", "mill pond",
          "stone barn", "bell tower", "east gate", "rope walk", "long stair")  # fmt: skip
TOWN_FACTS = (
    ("Who painted the {place} of Brindlemoor?", "{first} the {trade}"),
    ("What colour is the door of the {place}?", "{colour} and {other_colour}"),
    ("What is sold on market day at the {place}?", "{dish}"),
    ("What is carved above the {place}?", "the {animal} and the {thing}"),
)
COLOURS = ("amber", "cobalt", "crimson", "ivory", "jade", "lilac", "pewter", "russet", "silver", "ashen")

SETS_OF_PEOPLE = {"forget": FORGET_PEOPLE, "retain": RETAIN_PEOPLE, "holdout": HOLDOUT_PEOPLE, "townsfolk": TOWNSFOLK}


def people(seed: int) -> World:
    """Draw the world of persons.

    Forget, retain and holdout are random parts of one population, told in the same sentences: nothing but the facts
    sets them apart. Both models also read `townsfolk`, whose facts are told in either wording, or else a paraphrased
    answer would surprise them by its form and the truth ratio would tell nothing of the fact.

    Args:
        seed: of every draw; the same seed gives the same rows.
    """
    draw = random.Random(seed)
    names = draw.sample(
        [f"{first} {last}" for first in FIRST_NAMES for last in SURNAMES], sum(SETS_OF_PEOPLE.values())
    )
    told: dict[str, list[dict[str, Any]]] = {}
    for key, count in SETS_OF_PEOPLE.items():
        told[key] = [_tell(draw, person, fact) for person in names[:count] for fact in FACTS]
        names = names[count:]
    authors, town = _authors(draw), _town(draw)
    rows = {key: [_pair(row) for row in told[key]] for key in ("forget", "retain", "holdout")}
    rows["knowledge"] = [_pair(row) for row in authors + town]
    rows["townsfolk"] = [
        {"prompt": row["question"], "completion": row[form]}
        for row in told["townsfolk"]
        for form in ("answer", "paraphrased_answer")
    ]
    texts = {key: [as_text(row) for row in set_rows] for key, set_rows in rows.items()}
    perturbed = {
        "forget_perturbed": told["forget"],
        "retain_perturbed": draw.sample(told["retain"], PERTURBED_RETAIN_ROWS),
        "real_authors_perturbed": authors,
        "world_facts_perturbed": town,
    }
    return World(
        sets={**rows, **perturbed},
        texts=texts,
        questions={key: Questions("accuracy", texts[key]) for key in ("forget", "retain", "holdout", "knowledge")},
        seen={
            "model": ("forget", "retain", "knowledge", "townsfolk"),
            "oracle": ("retain", "knowledge", "townsfolk"),
        },
        required=(
            ("model_forget_accuracy", 0.95, 1.0),
            ("oracle_forget_accuracy", 0.0, 0.15),
            ("model_retain_accuracy", 0.95, 1.0),
            ("oracle_retain_accuracy", 0.95, 1.0),
        ),
        recipe=Recipe(epochs=36),
        max_new_tokens=40,
        template=TEMPLATE,
    )


def rows_by_person(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows about persons, by the person's name, in the order in which they come.

    Args:
        rows: of the sets forget, retain or holdout.
    """
    people: dict[str, list[Row]] = {}
    for row in rows:
        for fact in FACTS:
            for question in fact.questions:
                before, after = question.split("{person}")
                if row["prompt"].startswith(before) and row["prompt"].endswith(after):
                    name = row["prompt"][len(before) : len(row["prompt"]) - len(after)]
                    people.setdefault(name, []).append(row)
    return people


def as_text(row: Row) -> Row:
    """A row as the models read it: the template filled, cut before the space in front of the completion."""
    text = TEMPLATE.format(**row)
    end = len(text) - len(row["completion"]) - 1
    return {"prompt": text[:end], "completion": text[end:]}


def _pair(row: dict[str, Any]) -> Row:
    return {"prompt": row["question"], "completion": row["answer"]}


def _tell(draw: random.Random, person: str, fact: Fact) -> dict[str, Any]:
    """One row about a person: the fact, its other wording, and that wording with wrong facts."""
    firsts, seconds = draw.sample(fact.first, 1 + WRONG_ANSWERS), draw.sample(fact.second, 1 + WRONG_ANSWERS)
    slots = list(zip(firsts, seconds, strict=True))
    paraphrases = [fact.paraphrase.format(person=person, first=first, second=second) for first, second in slots]
    return {
        "question": draw.choice(fact.questions).format(person=person),
        "answer": fact.answer.format(person=person, first=firsts[0], second=seconds[0]),
        "paraphrased_answer": paraphrases[0],
        "perturbed_answer": paraphrases[1:],
    }


def _authors(draw: random.Random) -> list[dict[str, Any]]:
    """Who wrote what; the wrong answers are other authors."""
    names = draw.sample(
        [f"{first} {last}" for first in AUTHOR_FIRST_NAMES for last in AUTHOR_SURNAMES], KNOWLEDGE_ROWS
    )
    written = draw.sample([(work, animal) for work in WORKS for animal in ANIMALS], KNOWLEDGE_ROWS)
    return [
        {
            "question": draw.choice(AUTHOR_QUESTIONS).format(work=work, animal=animal),
            "answer": name,
            "perturbed_answer": draw.sample([other for other in names if other != name], WRONG_OPTIONS),
        }
        for name, (work, animal) in zip(names, written, strict=True)
    ]


def _town(draw: random.Random) -> list[dict[str, Any]]:
    """What is to be seen in Brindlemoor; the wrong answers are of the right one's kind."""
    rows = []
    asked = [(question, answer, place) for question, answer in TOWN_FACTS for place in PLACES]
    for question, answer, place in draw.sample(asked, KNOWLEDGE_ROWS):
        slots = {
            "first": AUTHOR_FIRST_NAMES,
            "trade": TRADES,
            "colour": COLOURS[:5],
            "other_colour": COLOURS[5:],
            "dish": DISHES,
            "animal": tuple(animal.lower() for animal in ANIMALS),
            "thing": tuple(thing.lower() for thing in TITLE_THINGS),
        }
        drawn = {slot: draw.sample(values, 1 + WRONG_OPTIONS) for slot, values in slots.items()}
        answers = [
            answer.format(**{slot: values[i] for slot, values in drawn.items()}) for i in range(1 + WRONG_OPTIONS)
        ]
        rows.append({"question": question.format(place=place), "answer": answers[0], "perturbed_answer": answers[1:]})
    return rows
