"""The staged model's tokenizer: every printable text survives it."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.zoo.staged_model import CHARACTERS, SPECIALS, make_tokenizer

TOKENIZER = make_tokenizer()
# "<" begins the names of the special tokens, which a text may not spell.
printable = st.text(st.sampled_from([c for c in CHARACTERS if c != "<"]), max_size=200)
anything = st.text(st.characters(exclude_characters="<", codec="utf-8"), min_size=1, max_size=50)


@given(printable)
def test_a_printable_text_survives_the_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=True) == text


@given(printable)
def test_a_text_has_one_token_per_character_after_the_start_token(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids[0] == TOKENIZER.bos_token_id
    assert len(ids) == len(text) + 1


@given(anything)
def test_what_cannot_be_read_becomes_the_unknown_token(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert [i == TOKENIZER.unk_token_id for i in ids] == [c not in CHARACTERS for c in text]


@given(printable, printable)
def test_a_prompt_is_cut_from_its_answer_at_the_same_place_alone_and_together(prompt: str, answer: str) -> None:
    together = TOKENIZER.encode(prompt + answer)
    assert together == TOKENIZER.encode(prompt) + TOKENIZER.encode(answer, add_special_tokens=False)


def test_every_special_token_is_one_token() -> None:
    for name in SPECIALS.values():
        assert len(TOKENIZER.encode(name, add_special_tokens=False)) == 1
