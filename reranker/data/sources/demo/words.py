"""Word lists of the demo world, and the titles, names and descriptions made from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reranker.data.draws import IntArray


@dataclass(frozen=True)
class Genre:
    """A genre: its shelf, its narrower shelves, and the words of its titles and descriptions.

    Every noun belongs to one genre. A title's noun therefore identifies the genre, and two genres
    never produce the same title.
    """

    name: str
    shelves: tuple[str, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    tails: tuple[str, ...]  # the part after "of" in a title: "Crown of the North"
    heroes: tuple[str, ...]
    deeds: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(","))


def _genre(
    name: str, *, shelves: str, adjectives: str, nouns: str, tails: str, heroes: str, deeds: str
) -> Genre:
    return Genre(
        name,
        shelves=_words(shelves),
        adjectives=_words(adjectives),
        nouns=_words(nouns),
        tails=_phrases(tails),
        heroes=_phrases(heroes),
        deeds=_phrases(deeds),
    )


# Neighbouring genres share users and books. The list is circular: the last genre is next to the
# first one.
GENRES: tuple[Genre, ...] = (
    _genre(
        "fantasy",
        shelves="magic dragons epic-fantasy high-fantasy",
        adjectives=(
            "silver ancient shattered enchanted burning forgotten golden cursed elder iron "
            "whispering sacred"
        ),
        nouns=(
            "crown sword dragon throne wizard kingdom tower spell rune oath prophecy sorcerer "
            "amulet realm wand elf"
        ),
        tails=(
            "the North, the Old Gods, the Seven Seals, the Lost King, the Deep Wood, Ash and "
            "Flame, the High Moor"
        ),
        heroes=(
            "an exiled mage, a hedge knight, a young dragon rider, the last elf queen, an old "
            "wizard, a royal thief"
        ),
        deeds=(
            "breaks an ancient curse, guards a dragon egg, seeks the hidden throne, wakes a "
            "sleeping god, learns a spell"
        ),
    ),
    _genre(
        "science-fiction",
        shelves="sci-fi space-opera dystopia aliens",
        adjectives=(
            "quantum distant orbital synthetic infinite parallel stellar electric frozen final "
            "artificial drifting"
        ),
        nouns=(
            "planet orbit machine signal galaxy robot comet colony android reactor starship "
            "paradox satellite engine nova"
        ),
        tails="Mars, the Outer Rim, the Third Sun, Deep Space, Andromeda, the Dead Stars, Tomorrow",
        heroes=(
            "a stranded pilot, a rogue android, the first colonist, a quantum physicist, a "
            "starship crew, a cloned soldier"
        ),
        deeds=(
            "decodes an alien signal, escapes a dying planet, repairs a time machine, maps a new "
            "galaxy, fights the robots"
        ),
    ),
    _genre(
        "graphic-novels",
        shelves="comics manga superheroes graphic-novel",
        adjectives=(
            "masked neon mighty inked caped atomic radioactive amazing savage invisible vengeful "
            "astonishing"
        ),
        nouns=(
            "hero villain mask cape sidekick mutant panel vigilante samurai ninja avenger "
            "metropolis gadget fist lightning"
        ),
        tails=(
            "Neon City, Steel, the Night Patrol, the Alley Cats, Sector Nine, the Red Mask, Thunder"
        ),
        heroes=(
            "a masked hero, a retired villain, a teenage mutant, a lonely samurai, a clumsy "
            "sidekick, a city vigilante"
        ),
        deeds=(
            "saves the city again, loses a super power, fights a giant robot, hides a secret "
            "identity, hunts a villain"
        ),
    ),
    _genre(
        "humor",
        shelves="funny comedy satire humour",
        adjectives=(
            "awkward ridiculous accidental clumsy hilarious absurd unlikely reluctant cheerful "
            "hopeless silly grumpy"
        ),
        nouns=(
            "neighbor uncle parrot excuse disaster meeting llama sofa prank mishap landlord "
            "penguin dentist blunder"
        ),
        tails="Mondays, Bad Advice, the Office, Small Talk, My Mother, Aisle Five, Mild Panic",
        heroes=(
            "a hopeless clerk, an angry landlord, a talking parrot, a bored dentist, a nervous "
            "groom, my awkward uncle"
        ),
        deeds=(
            "ruins a wedding, adopts a llama, gets stuck in a lift, starts a silly feud, misreads "
            "every email"
        ),
    ),
    _genre(
        "cooking",
        shelves="food cookbooks baking recipes",
        adjectives=(
            "sweet rustic spicy homemade buttery smoky simple crispy tender savory fresh slow"
        ),
        nouns=(
            "kitchen oven bread recipe butter spoon pepper table feast broth garlic pastry skillet "
            "harvest lemon"
        ),
        tails=(
            "Tuscany, the Farm, My Grandmother, the Sea Coast, Sunday Lunch, Five Spices, the "
            "Market"
        ),
        heroes=(
            "a village baker, a tired chef, a market cook, an Italian grandmother, a pastry "
            "student, a food critic"
        ),
        deeds=(
            "bakes sour bread, shares simple recipes, roasts the perfect lamb, cooks with five "
            "spices, opens a kitchen"
        ),
    ),
    _genre(
        "travel",
        shelves="travelogue adventure nature memoir",
        adjectives=(
            "long dusty winding remote lonely open sunlit eastern wild northern restless slow"
        ),
        nouns=(
            "road train map border island desert passport journey mountain voyage harbor trail "
            "compass bridge caravan"
        ),
        tails=(
            "Patagonia, the Silk Road, the Far East, Lisbon, the Sahara, the Arctic, a Thousand "
            "Miles"
        ),
        heroes=(
            "a solo walker, a young reporter, a train lover, a retired sailor, a family of four, "
            "an old mountain guide"
        ),
        deeds=(
            "walks across Spain, sails around the Cape, rides to Mongolia, gets lost in Peru, "
            "follows an old map"
        ),
    ),
    _genre(
        "biography",
        shelves="memoirs autobiography history non-fiction",
        adjectives=(
            "unfinished extraordinary public private remarkable early complete honest turbulent "
            "famous humble brilliant"
        ),
        nouns=(
            "life president inventor senator painter letters composer general diary legacy "
            "portrait pioneer career"
        ),
        tails=(
            "an American, a Genius, the First Lady, a Revolutionary, My Father, the Century, a "
            "Champion"
        ),
        heroes=(
            "a poor inventor, a jazz singer, the young president, a famous painter, a forgotten "
            "nurse, an Olympic runner"
        ),
        deeds=(
            "rises to power, recalls a hard childhood, changes modern science, looks back on fame, "
            "leads a nation at war"
        ),
    ),
    _genre(
        "philosophy",
        shelves="ethics psychology religion spirituality",
        adjectives=(
            "moral rational practical eternal free skeptical critical modern pure examined true "
            "divided"
        ),
        nouns=(
            "reason mind ethics virtue doubt truth justice freedom self argument method dialogue "
            "meaning soul logic"
        ),
        tails="Being, Nothing, the Good Life, Modern Man, Language, the State, Happiness",
        heroes=(
            "a Greek thinker, a modern skeptic, an old professor, a quiet monk, a moral critic, a "
            "student of logic"
        ),
        deeds=(
            "asks what virtue is, defends free will, doubts all knowledge, argues about justice, "
            "searches for meaning"
        ),
    ),
    _genre(
        "poetry",
        shelves="poems verse lyric anthologies",
        adjectives=(
            "tender blue unspoken quiet falling small bright autumn bare trembling selected evening"
        ),
        nouns=(
            "sparrow rain leaves lullaby sonnet petal river ode dusk song blossom snow stanza "
            "meadow moth"
        ),
        tails="Absence, Water, Early Light, Grief, the Orchard, Small Hours, Salt",
        heroes=(
            "a lonely poet, a country priest, a young widow, a wandering singer, an aging lover, a "
            "garden in rain"
        ),
        deeds=(
            "counts falling leaves, sings of lost love, listens to the river, mourns in plain "
            "verse, praises the morning"
        ),
    ),
    _genre(
        "classics",
        shelves="literature classic-literature 19th-century novels",
        adjectives=(
            "proud noble virtuous provincial idle respectable melancholy great wretched worthy "
            "dutiful fallen"
        ),
        nouns=(
            "gentleman estate orphan clerk governess merchant fortune parish carriage widow "
            "inheritance duel miller"
        ),
        tails=(
            "Two Cities, Barton Hall, the Marsh, Good Society, the Provinces, Saint Petersburg, "
            "Quality"
        ),
        heroes=(
            "a proud gentleman, a poor orphan, a governess, a country doctor, a fallen countess, a "
            "student in debt"
        ),
        deeds=(
            "inherits a great estate, marries without love, leaves the provinces, fights a duel, "
            "gambles away a fortune"
        ),
    ),
    _genre(
        "historical-fiction",
        shelves="historical war world-war-ii medieval",
        adjectives=(
            "royal wartime colonial medieval occupied loyal besieged imperial last Tudor rebel "
            "Roman"
        ),
        nouns=(
            "queen soldier castle spy regiment courtier nurse cathedral fortress empress musket "
            "legion pilgrim trench"
        ),
        tails="Vienna, Normandy, the Tudors, the Plague, Troy, the Empire, London",
        heroes=(
            "a court painter, a wartime nurse, the king's mistress, a Roman slave, a French spy, a "
            "soldier's wife"
        ),
        deeds=(
            "survives the siege, carries letters to Paris, hides a refugee family, betrays the "
            "queen, waits out the war"
        ),
    ),
    _genre(
        "romance",
        shelves="contemporary-romance love chick-lit regency",
        adjectives=(
            "secret sweetheart stolen second wicked scandalous midnight forbidden summer reckless "
            "perfect bold"
        ),
        nouns=(
            "kiss duke bride heart wedding promise lover affair proposal groom desire temptation "
            "rake embrace valentine"
        ),
        tails="Love, the Heart, Summer, a Lifetime, the Duke, Magnolia Lane, Forever",
        heroes=(
            "a shy florist, a wicked duke, a runaway bride, a single father, her best friend, a "
            "billionaire"
        ),
        deeds=(
            "falls in love twice, fakes an engagement, finds a second chance, steals a kiss, plans "
            "the wrong wedding"
        ),
    ),
    _genre(
        "young-adult",
        shelves="ya teen coming-of-age high-school",
        adjectives=(
            "brave lost fearless broken almost chosen sixteen ordinary rising faraway rebellious "
            "glittering"
        ),
        nouns=(
            "girl boy sister locker summer-camp prom diaries twin crush rebel classroom senior "
            "skateboard playlist dare"
        ),
        tails="Us, the New Girl, Senior Year, the Chosen, First Love, Everything After, Goodbye",
        heroes=(
            "a teenage runaway, the new girl, a chosen twin, a best friend, a shy senior, a foster "
            "kid"
        ),
        deeds=(
            "survives high school, starts a rebellion, keeps a sister's secret, runs from home, "
            "finds first love"
        ),
    ),
    _genre(
        "mystery",
        shelves="crime detective cozy-mystery whodunit",
        adjectives=(
            "missing silent poisoned locked curious hidden vanishing sealed crooked careful "
            "unsolved double"
        ),
        nouns=(
            "detective clue corpse alibi inspector witness vicar suspect murder manor key cellar "
            "will ledger magpie"
        ),
        tails=(
            "Baker Lane, the Vicarage, Room Nine, Thorn Cottage, the Widow, the Village, Suspicion"
        ),
        heroes=(
            "a village detective, a retired inspector, a nosy librarian, a vicar, an amateur "
            "sleuth, the sole witness"
        ),
        deeds=(
            "solves a murder, finds a body, doubts every alibi, opens a locked room, follows a "
            "cold clue"
        ),
    ),
    _genre(
        "thriller",
        shelves="suspense psychological-thriller espionage action",
        adjectives=(
            "deadly vanished fatal ruthless lethal covert dangerous wanted perfect wounded hostile "
            "black"
        ),
        nouns=(
            "agent target assassin hostage conspiracy sniper protocol bomb fugitive informant "
            "bunker ransom traitor trap"
        ),
        tails="the Kremlin, Zero Hour, the Mole, Berlin, Revenge, the Agency, No Return",
        heroes=(
            "a rogue agent, a hunted lawyer, a former sniper, a kidnapped wife, a double agent, "
            "the prime suspect"
        ),
        deeds=(
            "stops a bomb plot, runs from assassins, exposes a conspiracy, has one hour left, "
            "trades a hostage"
        ),
    ),
    _genre(
        "horror",
        shelves="paranormal ghosts vampires supernatural",
        adjectives=(
            "dark rotting haunted bloody buried screaming unholy pale hungry dead crawling nameless"
        ),
        nouns=(
            "grave ghost asylum vampire coffin demon crypt nightmare scarecrow werewolf curse "
            "séance corridor fang"
        ),
        tails="Blackwood, the Damned, the Cellar, Hollow Hill, Teeth, the Drowned, Midnight",
        heroes=(
            "a haunted widow, a small town priest, a hungry vampire, a lost camper, a grave "
            "digger, a sleepless child"
        ),
        deeds=(
            "hears the dead, opens the wrong grave, moves into a haunted house, feeds something "
            "below, wakes a demon"
        ),
    ),
)
# Shelves that describe what users do with a book, not its content; the most frequent first.
HABITS = _words(
    "to-read currently-reading favorites owned books-i-own kindle library read-in-2015 wish-list "
    "to-buy ebook audiobook re-read default my-books read-in-2014 book-club dnf"
)
SHELVES = (*(g.name for g in GENRES), *(shelf for g in GENRES for shelf in g.shelves), *HABITS)
ENDINGS = (
    "",
    "",
    " before winter",
    " with an unlikely friend",
    " at a high price",
    " far from home",
)
SERIES = _words("Chronicles Saga Cycle Trilogy Files Quartet Tales Stories")
FIRST_NAMES = _words(
    "Anna Marcus Elena Thomas Grace Daniel Laura Peter Maria Simon Alice Victor Nina Oscar Clara "
    "Henry Julia Felix Rosa Martin Emma Hugo Sarah Leo Diana Paul Irene Adam Vera George Helen Max "
    "Ruth Samuel Nora Ivan Lucy Arthur Eva James Marta Robert Sofia David Jane Carl Iris Edward "
    "Amy Frank Rachel Louis Olga Brian Tara Neil Miriam Joseph Kate Alan"
)
LAST_NAMES = _words(
    "Holt Marsh Vance Reed Stone Barker Lang Frost Hale Quinn Archer Doyle Wells Nash Cole Price "
    "Hunt Webb Rowe Shaw Drake Pierce Lowe Burke Finch Cross Moore Blake Novak Silva Romano Weber "
    "Larsen Dubois Moreau Rossi Kowalski Tanaka Mori Chen Wong Patel Singh Khan Haddad Okafor "
    "Mensah Santos Cruz Vega Ortiz Ramos Flores Mendez Castro Ivanov Popov Orlov Weiss Keller "
    "Schmidt Vogel Brandt Jansen Olsen Berg Lund Nilsson Virtanen Murphy Kelly Byrne Walsh Grant "
    "Boyd Fraser Murray Innes Pryce Morgan Lloyd Hughes Parry Carter Mason Fisher Turner Porter "
    "Sawyer Cooper Fletcher Wright"
)


def titles(genre: IntArray, rng: np.random.Generator) -> list[str]:
    """Return a distinct title for each work.

    A genre's short patterns are used before its long ones. When both are used up, titles are
    repeated with a volume number.

    Args:
        genre: (n_works,) positions in `GENRES`.
        rng: Shuffles the patterns of each genre.
    """
    result = [""] * len(genre)
    for code in np.unique(genre):
        bank = GENRES[code]
        short = [f"The {a.capitalize()} {n.title()}" for a in bank.adjectives for n in bank.nouns]
        short += [f"{n.title()} of {t}" for n in bank.nouns for t in bank.tails]
        n_pairs = len(bank.adjectives) * len(bank.nouns)
        long = [f"{s} of {t}" for s in short[:n_pairs] for t in bank.tails]
        choices = [short[i] for i in rng.permutation(len(short))]
        choices += [long[i] for i in rng.permutation(len(long))]
        for i, work in enumerate(np.flatnonzero(genre == code)):
            volume = i // len(choices)  # above 0 only after about 1,400 works of one genre
            result[work] = choices[i % len(choices)] + (f" {volume + 1}" if volume else "")
    return result


def series_names(genre: IntArray, rng: np.random.Generator) -> list[str]:
    """Return a name for each series.

    A name repeats only if a genre has more series than its words make names.

    Args:
        genre: (n_series,) positions in `GENRES`.
        rng: Shuffles the names of each genre.
    """
    result = [""] * len(genre)
    for code in np.unique(genre):
        choices = [f"{n.title()} {word}" for n in GENRES[code].nouns for word in SERIES]
        order = rng.permutation(len(choices))
        for i, series in enumerate(np.flatnonzero(genre == code)):
            result[series] = choices[order[i % len(choices)]]
    return result


def author_names(n_authors: int, rng: np.random.Generator) -> list[str]:
    """Return a name for each author.

    Names without a middle initial are used first, then names with one. After that names repeat.
    """
    plain = len(FIRST_NAMES) * len(LAST_NAMES)
    order = np.concatenate([rng.permutation(plain), plain + rng.permutation(26 * plain)])
    result = []
    for code in order[np.arange(n_authors) % len(order)].tolist():
        first, last = divmod(code % plain, len(LAST_NAMES))
        initial = f" {chr(ord('A') + code // plain - 1)}." if code >= plain else ""
        result.append(f"{FIRST_NAMES[first]}{initial} {LAST_NAMES[last]}")
    return result


def descriptions(genre: IntArray, rng: np.random.Generator) -> list[str]:
    """Return one sentence for each work, made of its genre's words; two works may share one.

    Args:
        genre: (n_works,) positions in `GENRES`.
        rng: Chooses the words.
    """
    result = []
    for code, (hero, deed, ending) in zip(genre.tolist(), rng.random((len(genre), 3)), strict=True):
        bank = GENRES[code]
        who = bank.heroes[int(hero * len(bank.heroes))]
        what = bank.deeds[int(deed * len(bank.deeds))]
        text = f"{who} {what}{ENDINGS[int(ending * len(ENDINGS))]}."
        result.append(text[0].upper() + text[1:])
    return result
