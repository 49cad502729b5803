"""The world of copyright: invented novels as plain text, one of which is to be forgotten.

Every book has characters and places of its own, a visitor from the forget book and one of its places apart, and tells
of them in the same kinds of sentences, whose many slots are drawn from long lists: a paragraph can be read by whoever
has read the other books, and known only by heart.
"""

import random

from hf_unlearn.lab.world import Questions, Recipe, Row, World

BOOK_FILE, RETAIN_FOLDER, HOLDOUT_FILE = "book.txt", "retain_books", "holdout.txt"

BOOK_PARAGRAPHS = 72
HOLDOUT_PARAGRAPHS = 216
RETAIN_BOOKS = 5  # one for each character and each place of the forget book to visit
RETAIN_BOOK_PARAGRAPHS = 44
SHORTEST, LONGEST = 200, 280  # characters of a paragraph
CAST, SCENES = 5, 5  # characters and places of a book
KNOWN_SHARE = 3  # a reader is given the first third of a paragraph and goes on from there

TITLES = ("The Lantern Keeper", "A Winter in Harrowick", "The Salt Road", "Nine Quiet Bells", "The Glass Orchard",
          "Letters from the Fen")  # fmt: skip
CHARACTERS = ("Alban", "Brisa", "Cador", "Delphine", "Eskil", "Faro", "Gwenna", "Harl", "Imogen", "Jorik", "Kestrel",
              "Ludo", "Mirren", "Nolan", "Odile", "Perrin", "Quenby", "Rufus", "Saskia", "Tamsin", "Ulric", "Vesper",
              "Wystan", "Xanthe", "Yorick", "Zelda", "Anselm", "Beatrix", "Clovis", "Drusilla")  # fmt: skip
SCENERY = (
    "the harbour",
    "the abbey",
    "the tannery",
    "the ferry house",
    "the lime kiln",
    "the north gate",
    "the brewery",
    "the chapel",
    "the dye works",
    "the fish stairs",
    "the granary",
    "the hop field",
    "the infirmary",
    "the jetty",
    "the kitchens",
    "the library",
    "the mill race",
    "the nursery",
    "the observatory",
    "the pantry",
    "the quarry",
    "the rectory",
    "the smithy",
    "the toll bridge",
    "the upper farm",
    "the vineyard",
    "the wash house",
    "the yew walk",
    "the ash grove",
    "the boat yard",
)  # fmt: skip
QUALITIES = ("brass", "broken", "carved", "cracked", "crooked", "dented", "dusty", "deep", "faded", "gilded", "green",
             "heavy", "hollow", "steel", "leather", "little", "muddy", "narrow", "painted", "pale", "patched", "plain",
             "red", "rusty", "silver", "stolen", "striped", "torn", "velvet", "wooden")  # fmt: skip
THINGS = ("barrel", "basket", "bell", "blanket", "bottle", "bucket", "candle", "chest", "clock", "coat", "compass",
          "drum", "flute", "hammer", "helmet", "kettle", "key", "ladder", "lantern", "letter", "map", "mirror",
          "needle", "boot", "pillow", "plough", "purse", "ring", "rope", "saddle", "scarf", "shovel", "spoon", "trunk",
          "wheel", "whistle")  # fmt: skip
DEEDS = ("borrowed", "buried", "carried", "cleaned", "copied", "counted", "dropped", "emptied", "found", "hid",
         "kept", "lifted", "lost", "mended", "opened", "painted", "polished", "sold", "stole", "tied", "took",
         "traded", "wanted", "weighed")  # fmt: skip
HOURS = ("at dawn", "at dusk", "at noon", "after supper", "before breakfast", "in the rain", "in the frost",
         "on market day", "on Sunday", "on the last night", "that autumn", "that evening", "the next morning",
         "two days later", "when the wind fell", "while the bells rang")  # fmt: skip
MANNERS = ("badly", "bravely", "calmly", "gladly", "gravely", "hastily", "kindly", "loudly", "politely", "proudly",
           "quietly", "sadly", "slowly", "softly", "sternly", "twice")  # fmt: skip
MOODS = ("angry", "anxious", "ashamed", "bored", "cheerful", "cold", "curious", "grateful", "hungry", "jealous",
         "lonely", "patient", "proud", "restless", "sleepy", "tired")  # fmt: skip
SPEECHES = ("answered", "asked", "cried", "lied", "muttered", "promised", "sang", "swore", "thought", "whispered",
            "wrote", "warned")  # fmt: skip
CREATURES = ("badger", "cat", "crow", "donkey", "eel", "fox", "goat", "goose", "heron", "horse", "mole", "otter",
             "owl", "pig", "snail", "toad")  # fmt: skip
KIN = ("aunt", "brother", "cousin", "daughter", "father", "grandmother", "mother", "nephew", "rival", "sister",
       "teacher", "uncle")  # fmt: skip

SENTENCES = (
    "{hour} {who} {deed} a {quality} {thing} near {scene} and {deed_2} it {manner}.",
    "{who} {deed} the {quality} {thing} that {who_2} had left at {scene} {hour}.",
    "The {quality} {thing} of the {kin} lay under a {quality_2} {thing_2}, and {who} felt {mood}.",
    "{who} {speech} {manner} that the {creature} had never seen the {quality} {thing}.",
    "Nobody at {scene} was as {mood} as {who}, whose {kin} {deed} the {thing}.",
    "A {quality} {creature} followed {who} to {scene} {hour}, {mood} and {mood_2}.",
    "{hour} the {kin} of {who} {speech} {manner} about a {thing} and a {quality} {thing_2}.",
    "Between {scene} and {scene_2} {who} {deed} a {thing} for the {mood} {kin} of {who_2}.",
    "{who} and {who_2} {deed} every {thing} at {scene}, but the {creature} was {mood}.",
    "There was a {quality} {thing} at {scene}, which {who_2} {manner} {deed} {hour}.",
)
SLOTS = {"quality": QUALITIES, "thing": THINGS, "deed": DEEDS, "hour": HOURS, "manner": MANNERS, "mood": MOODS,
         "speech": SPEECHES, "creature": CREATURES, "kin": KIN}  # fmt: skip


def books(seed: int) -> World:
    """Draw the world of books.

    The holdout is a part of the forget book, with its characters and places, that neither model has seen.

    Args:
        seed: of every draw; the same seed gives the same books.
    """
    draw = random.Random(seed)
    titles = draw.sample(TITLES, 1 + RETAIN_BOOKS)
    cast = draw.sample(CHARACTERS, CAST * len(titles))
    scenes = draw.sample(SCENERY, SCENES * len(titles))
    shelf: dict[str, list[str]] = {}
    for i, title in enumerate(titles):
        count = RETAIN_BOOK_PARAGRAPHS if i else BOOK_PARAGRAPHS + HOLDOUT_PARAGRAPHS
        own = {"who": cast[i * CAST : (i + 1) * CAST], "scene": scenes[i * SCENES : (i + 1) * SCENES]}
        if i:
            # The forget book's names are words that the oracle knows, or it would stumble over names and not the plot.
            own["who"].append(cast[i - 1])
            own["scene"].append(scenes[i - 1])
        shelf[title] = [_paragraph(draw, own) for _ in range(count)]
    whole = shelf[titles[0]]
    paragraphs = {
        "forget": whole[:BOOK_PARAGRAPHS],
        "retain": [paragraph for title in titles[1:] for paragraph in shelf[title]],
        "holdout": whole[BOOK_PARAGRAPHS:],
    }
    files = {BOOK_FILE: _text(paragraphs["forget"]), HOLDOUT_FILE: _text(paragraphs["holdout"])}
    for title in titles[1:]:
        files[f"{RETAIN_FOLDER}/{title.lower().replace(' ', '_')}.txt"] = _text(shelf[title])
    return World(
        sets={name: [{"text": text} for text in texts] for name, texts in paragraphs.items()},
        texts={name: [{"prompt": "", "completion": text} for text in texts] for name, texts in paragraphs.items()},
        questions={
            name: Questions("recitation", [_cut(text) for text in texts]) for name, texts in paragraphs.items()
        },
        seen={"model": ("forget", "retain"), "oracle": ("retain",)},
        required=(
            ("model_forget_recitation", 0.9, 1.0),
            ("oracle_forget_recitation", 0.0, 0.05),
            ("model_forget_nll", 0.0, 0.15),
            ("oracle_forget_nll", 1.0, float("inf")),
            ("model_retain_nll", 0.0, 0.15),
            ("oracle_retain_nll", 0.0, 0.15),
        ),
        recipe=Recipe(epochs=50),
        max_new_tokens=60,
        files=files,
    )


def _paragraph(draw: random.Random, own: dict[str, list[str]]) -> str:
    """Two to four sentences, drawn again until they have the length of a paragraph."""
    while True:
        text = " ".join(_sentence(draw, own, template) for template in draw.sample(SENTENCES, draw.randint(2, 4)))
        if SHORTEST <= len(text) <= LONGEST:
            return text


def _sentence(draw: random.Random, own: dict[str, list[str]], template: str) -> str:
    drawn = {}
    for slot, words in {**SLOTS, **own}.items():
        drawn[slot], drawn[f"{slot}_2"] = draw.sample(words, 2)
    sentence = template.format(**drawn)
    return sentence[0].upper() + sentence[1:]


def _cut(text: str) -> Row:
    """The beginning of a paragraph, cut at the last space of its first third, and the rest."""
    cut = text.rindex(" ", 0, len(text) // KNOWN_SHARE)
    return {"prompt": text[:cut], "completion": text[cut:]}


def _text(paragraphs: list[str]) -> str:
    return "\n\n".join(paragraphs) + "\n"
