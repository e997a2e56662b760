"""Echoed words go, everything else stays, and offsets follow."""

import random
import re
import unicodedata

import pytest

from dareu.classifiers import strip_echo, strip_echo_at


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("Where was Lucia Duval born?", "Lucia Duval was born in Porto.", "in Porto."),
        ("Who is LUCIA?", "lucia's mother met Lucia.", "mother met."),
        ("Де народилася Мар'яна?", "Мар\u02bcяна народилася", ""),
        ("Who is Ka\u02bbiulani?", "Ka'iulani sang, Ka\u2018iulani\u02bcs song", "sang, song"),
        ("What is Lucia\u2019s job?", "Lucia paints, Lucia's paintings sell.", "paints, paintings sell."),
        ("Tell me of Anna-Maria.", "Anna-Maria, Maria and Anna sang.", ", and sang."),
        ("Anna and Maria?", "Anna-Maria and Anna-Lena sang.", "Anna-Lena sang."),
        ("Who was O'Brien?", "O'Brien was Brien O.", "Brien O."),
        ("Who?", "Annabel, not who, whoever.", "Annabel, not, whoever."),
        ("", "  two \n spaces \n\nhere ", "two spaces\nhere"),
        ("Sanna", "Sanna", ""),
        ("Sanna", "", ""),
        ("Für Zoë?", "Zoë für alle", "alle"),
        ("Where did Zoe\u0301 go?", "Zo\u00e9 went home", "went home"),
        ("Where did Zo\u00e9 go?", "Zoe\u0301 went to a cafe\u0301", "went to a cafe\u0301"),
        ("\ufb01ne?", "Fine art", "art"),
        ("王小明出生在哪里？", "王小明1971年出生在北京。", "1971年北京。"),
        ("小明在哪里？", "王小明在北京", "王北京"),
        ("田中さんはどこで生まれましたか。", "田中さんは東京で育った。", "東京で育った。"),
        ("김민수가 태어난 곳은?", "김민수는 서울에서 자랐다.", "는 서울에서 자랐다."),
        (unicodedata.normalize("NFD", "김민수가?"), "김민수는 서울", "는 서울"),
        ("김민수가?", unicodedata.normalize("NFD", "김민수는 서울"), unicodedata.normalize("NFD", "는 서울")),
        ("ใครคือสมชาย", "สมชายเป็นนักเขียน", "เป็นนักเขียน"),
        ("नमस्ते राम", "राम नगर में", "नगर में"),
        ("王?", "王 明", "明"),
        ("CO₂ in 5 m² and 3½", "CO₂ rises, 5 m² and 3½", "rises,"),
        ("アイウエ?", "ｱｲｳｴ です", "です"),
        ("ターナーは誰", "ﾀｰﾅｰは作家", "作家"),
        ("ﾀｰﾅｰは誰", "ターナーは作家", "作家"),
        ("ダナカさんは誰", "ﾀﾞﾅｶさんは作家", "作家"),
        ("តើ\u200bសុខា\u200bជានរណា?", "សុខាជាអ្នកនិពន្ធ", "អ្នកនិពន្ធ"),
        ("តើសុខាជានរណា?", "សុខា\u200bជា\u200bអ្នកនិពន្ធ", "អ្នកនិពន្ធ"),
        ("Who is Holm?", "Ho\u00adlm's is an A\u200bda", "an A\u200bda"),
        ("Who is Ho\u00adlm?", "Holm is Ada", "Ada"),
        ("Where is A\u200bda?", "Ada is here", "here"),
        ("علی‌رضا کیست", "علیرضا نویسنده است", "نویسنده است"),
        ("علیرضا کیست", "علی\u200cرضا نویسنده است", "نویسنده است"),
        ("من هو محمد", "مُحَمَّد كاتب", "كاتب"),
        ("מי זה דוד", "דָּוִד סופר", "סופר"),
        ("ปี 2514", "นี้ ๒๕๑๔ ปี", "นี้"),
        ("Who \u200c?", "a\u200c-\u200cb", "a\u200c-\u200cb"),
    ],
)
def test_strip_echo(prompt: str, text: str, expected: str) -> None:
    assert strip_echo(text, prompt) == expected


def words(text: str) -> list[str]:
    return [word.lower().removesuffix("'s") for word in re.findall(r"\w+(?:['-]\w+)*", text)]


def test_kept_words_keep_their_order_and_ends_map_to_kept_characters() -> None:
    draw = random.Random(0)
    pieces = [
        "Ada",
        "ada's",
        "Bo",
        "sea",
        "sand-sea",
        "born",
        " ",
        "  ",
        "\n",
        ", ",
        ".",
        "-",
        "'",
        '"',
        " (",
        "é",
        "🙂",
    ]
    for _ in range(300):
        text = "".join(draw.choices(pieces, k=draw.randrange(12)))
        prompt = " ".join(draw.choices(["Ada", "Bo's", "born", "where"], k=3))
        ends = list(range(len(text) + 1))
        stripped, mapped = strip_echo_at(text, prompt, ends)
        assert stripped == strip_echo(text, prompt)
        assert not re.search(r"\s\s|^\s|\s$", stripped)
        assert words(stripped) == [word for word in words(text) if word not in words(prompt)]
        assert mapped[0] == 0
        assert mapped[-1] == len(stripped)
        for end in ends[1:]:
            # A character is kept or not: the offset moves by its one place, and only for that same character.
            step = mapped[end] - mapped[end - 1]
            assert step == 0 or (step == 1 and stripped[mapped[end - 1]] == text[end - 1])


def test_a_prefix_cut_between_words_is_stripped_alike() -> None:
    text, prompt = "Lucia Duval was born in Porto, near the sea.", "Where was Lucia born?"
    ends = [match.end() for match in re.finditer(r"\w+", text)]
    stripped, mapped = strip_echo_at(text, prompt, ends)
    assert [stripped[:end] for end in mapped] == [strip_echo(text[:end], prompt) for end in ends]
