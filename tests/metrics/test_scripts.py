"""Text metrics in twelve scripts and more: of a text with itself they are 1, of different words they are not."""

import unicodedata

import pytest

from hf_unlearn.data.books import book_rows
from hf_unlearn.data.neighbours import near_neighbours
from hf_unlearn.evaluation.judges.judge import RecitalJudge
from hf_unlearn.metrics import (
    accuracy,
    bleu,
    common_substring,
    distinct_n,
    is_empty,
    is_repetitive,
    is_same_answer,
    rouge_recall,
    words,
)
from hf_unlearn.metrics.refusal import is_refusal, refusal_rate

# Script -> a sentence, and another one of which half is the first.
SCRIPTS = {
    "Latin": ("Das Größte lebt dort weiter", "Das Größte stirbt hier nicht"),
    "Vietnamese": ("tôi yêu tiếng Việt", "tôi yêu món phở"),
    "Cyrillic": ("столица страны это Москва", "столица страны была Казань"),
    "Greek": ("η πρωτεύουσα είναι Αθήνα", "η πρωτεύουσα ήταν Σπάρτη"),
    "Arabic": ("العاصمة هي مدينة القاهرة", "العاصمة هي بلدة صغيرة"),
    "Hebrew": ("הבירה היא העיר ירושלים", "הבירה היא כפר קטן"),
    "Devanagari": ("राजधानी का नाम दिल्ली", "राजधानी का रंग नीला"),
    "Bengali": ("রাজধানীর নাম হলো ঢাকা", "রাজধানীর নাম ছিল বগুড়া"),
    "Tamil": ("தலைநகரம் பெயர் சென்னை ஆகும்", "தலைநகரம் பெயர் மதுரை இல்லை"),
    "Georgian": ("დედაქალაქი არის ქალაქი თბილისი", "დედაქალაქი არის სოფელი მცხეთა"),
    "Armenian": ("մայրաքաղաքը կոչվում է Երևան", "մայրաքաղաքը կոչվում էր Գյումրի"),
    "Ethiopic": ("ዋና ከተማው አዲስ አበባ", "ዋና ከተማው ሌላ ነው"),
    "Korean": ("한국의 수도는 서울 입니다", "한국의 수도는 부산 아닙니다"),
    "Chinese": ("首都叫北京", "首都是上海"),
    "Japanese": ("首都はトーキョー", "首都はおおさかだ"),
    "Thai": ("เมืองหลวงคือกรุงเทพ", "เมืองหลวงชื่อเชียงใหม่"),
    "Lao": ("ເມືອງຫຼວງແມ່ນວຽງຈັນ", "ເມືອງຫຼວງຊື່ປາກເຊ"),
    "Khmer": ("រាជធានីគឺភ្នំពេញ", "រាជធានីឈ្មោះសៀមរាប"),
    "Burmese": ("မြို့တော်သည်နေပြည်တော်", "မြို့တော်မှာရန်ကုန်"),
}
# Two answers that differ in a vowel sign, an accent or a final character alone.
DIFFERENT = [
    ("किताब", "कितब"),
    ("বই", "বি"),
    ("กา", "กี"),
    ("été", "êté"),
    ("北京", "北平"),
    ("שַׁבָּת", "שֶׁבֶת"),
    ("й", "и"),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_text_is_like_itself_and_unlike_others(script):
    text, other = SCRIPTS[script]
    for metric in (
        accuracy,
        bleu,
        common_substring,
        lambda a, b: rouge_recall(a, b, "rouge1"),
        lambda a, b: rouge_recall(a, b, "rougeL"),
    ):
        assert metric([text], [text]).value == pytest.approx(1, rel=1e-12)
        assert metric([unicodedata.normalize("NFD", text)], [text]).value == pytest.approx(1, rel=1e-12)
        assert metric([other], [text]).value < 1
        assert metric([text, other], [text, text]).value < 1
    assert 0.2 < rouge_recall([other], [text]).value < 0.8  # what both begin with
    assert not is_empty(text) and not is_repetitive(text + " " + other) and is_repetitive(f"{text} " * 6)
    assert 0 < distinct_n([text, text], 2).value <= 0.5 < distinct_n([text], 2).value
    assert RecitalJudge(8)([text + " " + other, other], [text, text]) == [True, False]
    # The row itself is the nearest of the pool, and what has no word of it is not near at all.
    pool = [{"text": row} for row in (other, text, "zzz")]
    neighbours = near_neighbours([{"text": text}], pool)
    assert list(neighbours.order) == [1, 0, 2] and neighbours.scores[2] == 0


@pytest.mark.parametrize(("one", "another"), DIFFERENT)
def test_signs_and_accents_tell_words_apart(one, another):
    assert not is_same_answer(one, another) and accuracy([one], [another]).value == 0
    assert rouge_recall([one], [another]).value < 1 and bleu([one], [another]).value < 1


def test_what_no_reader_tells_apart_is_the_same():
    same = [
        ("ＡＢＣ １２", "abc 12"),
        ("STRASSE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("می\u200cروم", "میروم"),
        ("北 京。", "北京"),
    ]
    assert all(is_same_answer(*pair) and rouge_recall([pair[0]], [pair[1]]).value == 1 for pair in same)
    assert words("The clock's a_b, é 2.") == ["the", "clock", "s", "a", "b", "é", "2"]  # ASCII as rouge_score has it
    assert is_refusal("Ｉ don’t know.") and is_refusal("那座塔？I don't know。")
    own = ["Je ne sais pas", "我不知道", "  "]
    assert refusal_rate(["je ne sais pas !", "我不知道那座塔。", "Je sais.", "Non"], own).value == 0.5


def test_texts_of_symbols_alone_are_like_themselves_and_unlike_others():
    for one, other in (("👍🏽 🎉", "🎉"), ("❤️", "💔"), ("🇫🇷🇩🇪", "🇫🇷🇮🇹"), ("→ ∞", "∞ →")):
        for metric in (accuracy, rouge_recall, bleu, common_substring):
            assert metric([one], [one]).value == pytest.approx(1)
            assert metric([other], [one]).value < 1
        assert RecitalJudge(8)([one, other], [one, one]) == [True, False]
    assert not is_same_answer("", "👍") and is_same_answer("", "…") and is_same_answer("👍 ok", "ok")


def test_reciting_part_of_a_text_without_spaces():
    """30 of 40 characters are a recital; the 15 that many texts begin with are not; two characters are a word."""
    book = "".join(chr(0x4E00 + 37 * i) for i in range(40))
    assert RecitalJudge()([book[:30] + "完" * 5], [book]) == [True]
    assert RecitalJudge()([book[:15] + "完" * 5], [book]) == [False]
    assert RecitalJudge()([book[:16]], [book]) == [True]
    assert 0.7 < rouge_recall([book[:30]], [book]).value < 0.8 and 0.5 < bleu([book[:30]], [book]).value < 0.8


def test_loops_of_characters_are_seen_and_plain_texts_are_not_loops():
    thai = "เมืองหลวงของประเทศไทยคือกรุงเทพมหานครซึ่งตั้งอยู่บนแม่น้ำเจ้าพระยาและเป็นเมืองที่ใหญ่ที่สุดของประเทศ"
    assert is_repetitive("我不知道我不知道我不知道我不知道") and is_repetitive("はいはいはいはいはいはい")
    assert not is_repetitive(thai) and not is_repetitive("不不不不") and is_repetitive(thai * 3)


def test_bleu_of_short_texts_goes_up_to_their_own_order():
    """Three words: (1 x 1 x 1)^(1/3); of a pair of two words one is right: (1/2 x 1/2)^(1/2), the second smoothed."""
    assert bleu(["a b c"], ["a b c"]).value == pytest.approx(1, rel=1e-12)
    assert bleu(["a"], ["a"]).value == pytest.approx(1, rel=1e-12)
    assert bleu(["a b"], ["a c"]).value == pytest.approx(0.5, rel=1e-9)
    assert bleu([""], ["a"]).value == 0 and bleu(["a b"], ["a b c d"]).value == pytest.approx(2.718281828**-1)


@pytest.mark.parametrize("stop", ["۔ ", "। ", "። ", "؟ ", "。", "။"])
def test_passages_of_a_book_end_with_a_sentence_of_its_script(stop):
    sentences = [f"{letter * 30}{stop}" for letter in "कखगघचछजझ"]
    rows = book_rows("".join(sentences).strip(), prompt_characters=10, passage_characters=64)
    assert len(rows) == 4 and all((row["prompt"] + row["completion"]).endswith(stop.strip()) for row in rows)


def test_a_prompt_is_not_cut_between_a_letter_and_its_vowel_sign():
    rows = book_rows("กี่" * 100, prompt_characters=10, passage_characters=60)
    assert {row["prompt"] for row in rows} == {"กี่" * 3} and all(row["completion"].startswith("ก") for row in rows)
