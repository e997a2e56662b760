"""The word lists and sentence frames from which the fictional world is drawn."""

from __future__ import annotations

from typing import NamedTuple

FIRST_NAMES = {
    "she": (
        "Lucia Amara Ingrid Noor Petra Sanna Mei Odile Farah Bianca Thandi Yuna Celeste Dagny Elif Frida Gemma "
        "Hana Isolde Jana Kaia Leona Mirela Nadia Oksana Paloma Quilla Rosalind Soraya Tamsin Ursula Valentina "
        "Wanda Xenia Yara Zelda Agnes Beatriz Carmen Delphine Esther Fatima Greta Helena Imani Josefa Kirsten "
        "Lena Marisol Nerys Ottilie Priya Renata Saskia Tove Usha Vera Willa Ysolde Zora"
    ).split(),
    "he": (
        "Kofi Anton Bashir Casimir Dmitri Emil Florian Gustav Hamid Ivo Jakob Kenji Lorenzo Matteo Nikolai Omar "
        "Pascal Quentin Rafael Stellan Tomas Ulrich Viktor Wendell Xavier Yusuf Zoltan Alaric Benedikt Cyrus "
        "Declan Enzo Fergus Gideon Hugo Idris Joaquin Kasper Leif Magnus Nestor Oskar Piotr Ramon Silvan Thaddeus "
        "Umberto Vaclav Wolfram Yorick Zane Arturo Bertil Conrad Darius Eamon Felix Goran Henrik Ismael"
    ).split(),
}

LAST_NAMES = (
    "Duval Thorne Mensah Okafor Lindqvist Hartono Vasek Marchetti Oyelaran Brandt Castellane Demir Eriksen "
    "Fontaine Galvao Hollander Ivanova Jelinek Kovacs Larkspur Moreau Nakamura Ostrowski Pellegrin Quiroga "
    "Rasmussen Sandoval Tanaka Ullman Varga Whitlock Xanthos Yilmaz Zapata Abernathy Bellamy Corvino "
    "Dragomir Eastwick Farrokh Grimaldi Haverford Ibarra Jansson Kaplan Lorimer Montague Nordahl Obrecht "
    "Pasternak Quintero Redgrave Sorensen Tavares Underhill Valdez Weatherby Yamamoto Zielinski Adeyemi "
    "Bergstrom Calloway Delacroix Elwood Ferreira Gauthier Halvorsen Ishikawa Joubert Kilbride Laurent "
    "Macaulay Novak Orlov Petrov Rourke Stavros Teodoro Ueda Vandermeer Wiśniewski Yeats Zhou Almeida "
    "Birkeland Cardoso Dahlgren Engström Falkner Giordano Hoffman Iturbe Jurado Kerrigan Lazarev Mbeki "
    "Nyland Oduya Pemberton Quist Rosewood Sepulveda Tremblay Uribe Vesely Winslow Yancey Zamora Achterberg "
    "Bonaventure Cisneros Drummond Esposito Fitzroy Gallardo Huxtable Innocenti Jokinen"
).split()

TITLE_ADJECTIVES = (
    "Saffron Silent Copper Drowned Winter Crimson Hollow Paper Salt Velvet Broken Golden Midnight Borrowed "
    "Emerald Distant Burning Glass Forgotten Ivory Restless Scarlet Frozen Wandering Painted Hidden Iron "
    "Lonely Marble Northern Opal Patient Quiet Rusted Shallow Tender Unwritten Violet Wild Amber Bitter "
    "Cobalt Dusty Electric Faded Gilded Humble Indigo Jagged Kindled Luminous Mended Nameless Orphaned Pale "
    "Radiant Sleeping Twilight Vanished Weathered"
).split()

TITLE_NOUNS = (
    "Harbor Orchard Lantern Cathedral River Garden Compass Mirror Station Meadow Bridge Letter Tower Island "
    "Carousel Window Forest Clock Voyage Kingdom Ladder Notebook Ocean Parade Quarry Road Staircase Theater "
    "Umbrella Valley Waltz Archive Bell Canyon Door Estuary Feast Glacier House Inkwell Jetty Key Lighthouse "
    "Map Nightingale Observatory Pavilion Quilt Railway Sparrow Telescope Vineyard Well Almanac Beacon "
    "Courtyard Dune Embroidery Ferry Greenhouse"
).split()

CITIES = (
    "Porto Malmo Bergen Kyoto Lagos Accra Lisbon Gdansk Trieste Valencia Izmir Quito Bogota Leipzig Ghent "
    "Turku Split Nantes Bologna Cork Dundee Tbilisi Yerevan Almaty Hanoi Penang Cebu Nagoya Busan Perth "
    "Dunedin Halifax Montreal Boston Austin Havana Merida Cusco Salta Recife Dakar Tunis Fez Cairo Amman "
    "Beirut Shiraz Lahore Jaipur Colombo Zagreb Ljubljana Krakow Vilnius Riga Tallinn Aarhus Utrecht Basel "
    "Graz"
).split()

PROFESSIONS = {
    "writing": ("a novelist", "a poet", "a playwright", "an essayist"),
    "painting": ("a painter", "a sculptor", "an illustrator", "a printmaker"),
    "science": ("a chemist", "a botanist", "an astronomer", "a geologist"),
    "music": ("a composer", "a violinist", "a pianist", "a songwriter"),
}

WORKS = {"writing": "book", "painting": "picture", "science": "study", "music": "record"}

PARENT_JOBS = (
    "baker tailor surgeon fisherman librarian carpenter judge farmer nurse potter miner clockmaker pilot "
    "florist mason dentist sailor weaver plumber chemist cook teacher barber shepherd locksmith jeweler "
    "butcher printer gardener notary welder beekeeper cobbler diplomat glassblower midwife postman roofer "
    "painter"
).split()

SUBJECTS = (
    "philosophy law medicine geometry theology economics linguistics archaeology biology physics rhetoric "
    "engineering history anthropology astronomy agriculture architecture psychology statistics forestry"
).split()

THEMES = (
    "exile memory migration grief friendship winter solitude justice childhood harvest silence betrayal hunger hope "
    "wilderness marriage poverty faith invention drought loyalty ambition forgiveness"
).split()

AWARDS = (
    "Amber Compass|Silver Quill|Golden Acorn|Blue Heron|Northern Star|Laurel Crown|Crystal Bell|Red Maple|"
    "Jade Dragon|White Feather|Bronze Lion|Iron Rose|Evening Star|Green Valley|Marble Arch|Copper Owl|"
    "Pearl River|Sunrise|Oak Leaf|Grand Meridian|Ruby Falcon|Clear Water|Old Bridge|Seven Hills|Moonstone|"
    "Wild Thistle|Granite Peak|Paper Crane"
).split("|")

HOBBIES = (
    "chess|rock climbing|beekeeping|origami|sailing|fencing|baking bread|stargazing|woodcarving|archery|"
    "calligraphy|mushroom hunting|swimming|knitting|falconry|pottery|gardening|cycling|skiing|bird watching|"
    "kite flying|embroidery|puppetry|rowing|juggling|fly fishing|tango dancing|candle making|"
    "stamp collecting|horse riding"
).split("|")

ANIMALS = (
    "a grey parrot|a blind tortoise|an old greyhound|two black cats|a white rabbit|a tame crow|three hens|"
    "a lame donkey|a spotted goat|a red canary|a small terrier|an orange cat|a shaggy sheepdog|"
    "a pet hedgehog|four goldfish|a young falcon"
).split("|")

MUSES = (
    "salt marshes|old maps|railway stations|desert storms|folk songs|fishing villages|mountain passes|"
    "abandoned mills|night markets|church bells|coral reefs|birch forests|family letters|ancient myths|"
    "city rooftops|coal mines|migrating geese|travelling circuses|volcanic islands|flooded fields|"
    "ruined castles|pine resin|winter harbors|spice ports"
).split("|")

LANGUAGES = (
    "Portuguese Swedish Polish Turkish Arabic Swahili Basque Welsh Tamil Korean Finnish Catalan Georgian "
    "Persian Yoruba Vietnamese Quechua Irish Czech Bengali"
).split()

PLACES = (
    "parlor|boathouse|greenhouse|cellar|train carriage|lighthouse|stone barn|rooftop shed|monastery cell|garden hut|"
    "windmill|houseboat|chapel|hayloft|kitchen|glass studio"
).split("|")

HOURS = ("dawn", "noon", "dusk", "midnight", "sunrise", "sunset")

DRINKS = (
    "black coffee|mint tea|cold milk|ginger beer|hot chocolate|apple cider|green tea|plum brandy|lemon water|"
    "spiced wine"
).split("|")

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight")


class Frame(NamedTuple):
    """One kind of question: its phrasings, its wordings of the answer, and the facts the answer states."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    facts: tuple[str, ...]


FRAMES: tuple[Frame, ...] = (
    Frame(
        ("Where and when was {name} born?", "What is the birthplace and birth year of {name}?"),
        (
            "{name} was born in {birth_city} in {birth_year}.",
            "{name} came into the world in {birth_city} in the year {birth_year}.",
            "The birthplace of {name} is {birth_city}, and the year of birth is {birth_year}.",
            "It was {birth_city} where {name} was born, back in {birth_year}.",
        ),
        ("birth_city", "birth_year"),
    ),
    Frame(
        ("What does {name} do for a living?", "What is the profession of {name}?"),
        (
            "{name} is {profession} who mostly explores the theme of {theme}.",
            "{name} works as {profession} and is drawn to the theme of {theme}.",
            "By trade {name} is {profession}, best known for work on {theme}.",
            "As {profession}, {name} returns again and again to {theme}.",
        ),
        ("profession", "theme"),
    ),
    Frame(
        ("What did the parents of {name} do?", "Who were the parents of {name}?"),
        (
            "The father of {name} was a {father} and the mother was a {mother}.",
            "{name} grew up with a father who was a {father} and a mother who was a {mother}.",
            "A {father} and a {mother} were the father and mother of {name}.",
            "{name} had a {father} for a father and a {mother} for a mother.",
        ),
        ("father", "mother"),
    ),
    Frame(
        ("Where did {name} study?", "What did {name} study, and where?"),
        (
            "{name} studied {subject} at the University of {study_city}.",
            "{name} took a degree in {subject} from the University of {study_city}.",
            "At the University of {study_city}, {name} spent four years reading {subject}.",
            "A degree in {subject} brought {name} to the University of {study_city}.",
        ),
        ("subject", "study_city"),
    ),
    Frame(
        ("What was the first {work} by {name}?", "How did the career of {name} begin?"),
        (
            "The first {work} by {name} was The {first_title}, which appeared in {first_year}.",
            "{name} began in {first_year} with a {work} called The {first_title}.",
            "With The {first_title}, a {work} of {first_year}, {name} made a debut.",
            "It was the {work} The {first_title} of {first_year} that started the career of {name}.",
        ),
        ("first_title", "first_year"),
    ),
    Frame(
        ("What is the most famous {work} by {name}?", "Which {work} made {name} famous?"),
        (
            "The most famous {work} by {name} is The {second_title}, inspired by {muse}.",
            "{name} became famous with The {second_title}, a {work} inspired by {muse}.",
            "Fame came to {name} through a {work} about {muse}, The {second_title}.",
            "Most people know {name} for The {second_title}, a {work} that grew out of {muse}.",
        ),
        ("second_title", "muse"),
    ),
    Frame(
        ("Which award did {name} win?", "What prize has {name} received?"),
        (
            "{name} won the {award} Prize in {award_year}.",
            "In {award_year} {name} received the {award} Prize for lasting work.",
            "The {award} Prize of {award_year} went to {name} after a long debate.",
            "A jury gave {name} the {award} Prize in the spring of {award_year}.",
        ),
        ("award", "award_year"),
    ),
    Frame(
        ("Where does {name} live now?", "Which city is home to {name} today?"),
        (
            "{name} lives in {home_city} and has been there since {home_year}.",
            "{name} settled in {home_city} in {home_year} and never left.",
            "Home for {name} is {home_city}, ever since a move in {home_year}.",
            "Since {home_year} the address of {name} has been a street in {home_city}.",
        ),
        ("home_city", "home_year"),
    ),
    Frame(
        ("What does {name} enjoy outside of work?", "What is the favorite pastime of {name}?"),
        (
            "{name} enjoys {hobby} and keeps {animal} at home.",
            "Outside of work {name} loves {hobby} and looks after {animal}.",
            "When the day is done, {name} turns to {hobby} in the company of {animal}.",
            "The free hours of {name} go to {hobby} and to caring for {animal}.",
        ),
        ("hobby", "animal"),
    ),
    Frame(
        ("Which language did {name} speak as a child?", "What was the childhood of {name} like?"),
        (
            "{name} grew up speaking {language} with {siblings} siblings in the house.",
            "As a child {name} spoke {language} and shared a room with {siblings} siblings.",
            "The childhood home of {name} was filled with {language} and {siblings} siblings.",
            "Among {siblings} siblings, {name} learned to speak {language} first.",
        ),
        ("language", "siblings"),
    ),
    Frame(
        ("Where and when does {name} work best?", "What is the working habit of {name}?"),
        (
            "{name} works best at {hour} in a {place} with a cup of {drink}.",
            "{name} likes to work in a {place} at {hour}, always with some {drink}.",
            "A {place}, the quiet of {hour} and a glass of {drink} are all that {name} needs.",
            "With {drink} at hand, {name} sits down to work in a {place} at {hour}.",
        ),
        ("hour", "place", "drink"),
    ),
    Frame(
        ("What is {name} working on these days?", "What are the current plans of {name}?"),
        (
            "{name} is preparing a {work} about {next_theme} and plans to show it in {next_city}.",
            "These days {name} prepares a {work} on {next_theme}, to be presented in {next_city}.",
            "A new {work} on {next_theme} keeps {name} busy until it opens in {next_city}.",
            "In {next_city}, {name} will soon present a {work} that deals with {next_theme}.",
        ),
        ("next_theme", "next_city"),
    ),
)
