"""The little that is asked of a causal language model and its tokenizer, for any architecture.

Tensor suffixes: B rows, T tokens, V vocabulary, L layers, D width. Rows are padded on the left, with an attention mask and explicit
positions, so that a row's numbers do not depend on its neighbours.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class Forwards:
    """Counts forward passes, one per row: the cost of a measurement in units a machine cannot change.

    ``most`` is how many rows one pass may have, once memory ran out; ``None`` as long as it did not.
    """

    rows: int = 0
    most: int | None = None

    def halve(self, tried: int) -> bool:
        """Allows half of the ``tried`` rows, or of what was allowed if that is less; False where that is none.

        >>> forwards = Forwards()
        >>> forwards.halve(5), forwards.most, forwards.halve(9), forwards.most, forwards.halve(9)
        (True, 2, True, 1, False)
        """
        allowed = tried if self.most is None else min(tried, self.most)
        if allowed < 2:
            return False
        self.most = allowed // 2
        return True


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of what is given and of what must follow; neither is empty."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def encode(tokenizer: Any, prompt: str, answer: str, chat: bool = False) -> Encoded:
    """Prompt and answer as ids, cut where the prompt ends.

    They are tokenised together, as the model meets them, unless a token would straddle the cut; then apart. A blank
    between prompt and answer belongs to whichever the suite wrote it in.
    """
    if chat and getattr(tokenizer, "chat_template", None):
        turn = [{"role": "user", "content": prompt}]
        prompt, start = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False), []
    else:
        start = _start(tokenizer)
    given, whole = _ids(tokenizer, prompt), _ids(tokenizer, prompt + answer)
    follows = whole[len(given) :] if whole[: len(given)] == given else _ids(tokenizer, answer)
    if not follows:
        raise ValueError(f"expected an answer of at least one token, found {answer!r}; give the item another answer")
    # A model with neither prompt nor start token still needs something to read.
    return Encoded(tuple(start + given) or (_filler(tokenizer),), tuple(follows))


def encode_text(tokenizer: Any, text: str) -> Encoded:
    """A text as ids to be guessed one after the other; without a start token its first id is given."""
    ids = _start(tokenizer) + _ids(tokenizer, text)
    if len(ids) < 2:
        raise ValueError(f"expected a text of at least two tokens, found {text!r}; give the item a longer text")
    return Encoded(tuple(ids[:1]), tuple(ids[1:]))


def target_logits(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], forwards: Forwards | None = None
) -> Iterator[Tensor]:
    """For each row, the logits (T, V) from which its answer's tokens are predicted, in one forward pass."""
    keep = max(len(row.answer) for row in rows) + 1
    padded = _left_padded(model, tokenizer, [[*row.prompt, *row.answer] for row in rows])
    logits_BTV = _forward(model, padded, forwards, keep=keep).logits[:, -keep:]
    for row, logits_TV in zip(rows, logits_BTV, strict=True):
        yield logits_TV[keep - 1 - len(row.answer) : keep - 1]


def last_token(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], forwards: Forwards | None = None
) -> tuple[Tensor, Tensor]:
    """The hidden states (B, L, D) and the next token's logits (B, V) at each prompt's last token, in one forward pass."""
    out = _forward(model, _left_padded(model, tokenizer, prompts), forwards, keep=1, hidden=True)
    return torch.stack([states_BTD[:, -1] for states_BTD in out.hidden_states], dim=1), out.logits[:, -1]


def answers_greedily(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], references: Sequence[str], forwards: Forwards | None = None
) -> list[bool]:
    """Whether the model's greedy answer to each row's prompt equals its reference.

    One forward pass over prompt and reference together settles nearly all rows: as long as each reference token is
    the model's first guess, greedy decoding writes the reference, and at the first token that is not, the text so
    far usually cannot become it any more. Only what stays open is really generated.
    """
    ends = end_ids(model, tokenizer)
    limits = [answer_limit(model, row.prompt, reference) for row, reference in zip(rows, references, strict=True)]
    answers = [_Answer(tokenizer, r, ends, limit) for r, limit in zip(references, limits, strict=True)]
    for row, answer, guesses in zip(rows, answers, _first_guesses(model, tokenizer, rows, forwards), strict=True):
        agreed = next((t for t, token in enumerate(row.answer) if guesses[t] != token), len(row.answer))
        answer.read([*row.answer[:agreed], guesses[agreed]])
    undecided = [place for place, answer in enumerate(answers) if answer.right is None]
    if undecided:
        _generate(model, tokenizer, [rows[p].prompt for p in undecided], [answers[p] for p in undecided], forwards)
    return [answer.right is True for answer in answers]


@dataclass(slots=True)
class _Answer:
    """A greedy answer in the making: ``right`` is ``None`` as long as it can still become the reference.

    At ``limit`` tokens it ends whatever comes next.
    """

    tokenizer: Any
    reference: str
    ends: frozenset[int]
    limit: int
    right: bool | None = None
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reference = self.reference.strip()

    def read(self, tokens: Sequence[int]) -> None:
        """Takes the ids written so far (all but the last are known not to end the answer)."""
        ended, text = read_answer(self.tokenizer, tokens, self.ends, one_line="\n" not in self.reference)
        if ended:
            self.right = text.strip() == self.reference
        elif not self.reference.startswith(text.strip().rstrip("�")):
            self.right = False

    def write(self, token: int) -> None:
        """Takes one more generated id; at its own limit the answer ends, whatever its neighbours still write."""
        self.tokens.append(token)
        self.read(self.tokens)
        if self.right is None and len(self.tokens) >= self.limit:
            self.right = _text(self.tokenizer, self.tokens).strip() == self.reference


def read_answer(tokenizer: Any, tokens: Sequence[int], ends: frozenset[int], one_line: bool) -> tuple[bool, str]:
    """Whether an answer has ended with the last of these ids, and its text: the first line of it if ``one_line``."""
    ended = tokens[-1] in ends
    text = _text(tokenizer, tokens[:-1] if ended else tokens)
    if one_line and "\n" in text.lstrip():
        return True, text.lstrip().split("\n")[0]
    return ended, text


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def answer_limit(model: Any, prompt: Sequence[int], reference: str) -> int:
    """Tokens for an answer that still matches: one per byte and some blanks, within the model's window."""
    return min(len(reference.strip().encode()) + 4, window(model) - len(prompt))


def _first_guesses(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], forwards: Forwards | None
) -> Iterator[list[int]]:
    """Each row's first guess at every answer token and at the token after the answer."""
    keep = max(len(row.answer) for row in rows) + 1
    padded = _left_padded(model, tokenizer, [[*row.prompt, *row.answer] for row in rows])
    guesses_BT = _forward(model, padded, forwards, keep=keep).logits[:, -keep:].argmax(dim=-1).tolist()
    return (guesses[keep - 1 - len(row.answer) :] for row, guesses in zip(rows, guesses_BT, strict=True))


def _generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[_Answer],
    forwards: Forwards | None,
) -> None:
    """Greedy decoding until every answer is right, wrong or at its limit."""

    def take(logits_BV: Tensor) -> list[int] | None:
        guesses: list[int] = logits_BV.argmax(dim=-1).tolist()
        for answer, token in zip(answers, guesses, strict=True):
            if answer.right is None:
                answer.write(token)
        return None if all(answer.right is not None for answer in answers) else guesses

    decode(model, tokenizer, prompts, take, forwards)


def decode(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    take: Callable[[Tensor], Sequence[int] | None],
    forwards: Forwards | None = None,
) -> None:
    """Decoding token by token: ``take`` is given the next token's logits (B, V) and returns the ids, ``None`` to end.

    Written out because ``generate`` would let the candidate's own generation settings (penalties, suppressed
    tokens, sampling) decide what is compared.
    """
    ids_BT, mask_BT = _left_padded(model, tokenizer, prompts)
    fed_BT, cache = ids_BT, None
    while True:
        out = _forward(model, (fed_BT, mask_BT), forwards, keep=1, cache=cache, use_cache=True)
        taken = take(out.logits[:, -1])
        if taken is None:
            return
        next_B1 = torch.tensor(taken, device=ids_BT.device)[:, None]
        cache = getattr(out, "past_key_values", None)
        ids_BT = torch.cat([ids_BT, next_B1], dim=1)
        mask_BT = torch.cat([mask_BT, torch.ones_like(next_B1)], dim=1)
        fed_BT = ids_BT if cache is None else next_B1


def _forward(
    model: Any,
    padded: tuple[Tensor, Tensor],
    forwards: Forwards | None,
    *,
    keep: int,
    cache: Any = None,
    use_cache: bool = False,
    hidden: bool = False,
) -> Any:
    ids_BT, mask_BT = padded
    accepted = inspect.signature(model.forward).parameters
    optional: dict[str, Any] = {"logits_to_keep": keep, "use_cache": use_cache, "past_key_values": cache}
    # Rows that ended go on being fed with their batch; learned positions end at the window.
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0, max=window(model) - 1)
    optional["position_ids"] = positions_BT[:, -ids_BT.shape[1] :]
    if forwards is not None:
        forwards.rows += ids_BT.shape[0]
    given = {name: value for name, value in optional.items() if name in accepted and value is not None}
    if hidden:
        given["output_hidden_states"] = True
    return model(input_ids=ids_BT, attention_mask=mask_BT, **given)


def _left_padded(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    if width > window(model):
        raise ValueError(
            f"expected items of at most {window(model)} tokens, found one of {width}; shorten the suite's items"
        )
    filler = _filler(tokenizer)
    ids = [[filler] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    device = next(model.parameters()).device
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def window(model: Any) -> int:
    """The most tokens the model can read; very many where it names no limit."""
    return int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _start(tokenizer: Any) -> list[int]:
    """The beginning-of-sequence id, if this tokenizer puts one before a text."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos] else []


def _filler(tokenizer: Any) -> int:
    """An id for places that the mask hides."""
    found = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    return int(found)


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's and those of the model's generation settings."""
    settings = getattr(model, "generation_config", None)
    listed = getattr(settings, "eos_token_id", None)
    own = listed if isinstance(listed, list) else [listed]
    return frozenset(int(i) for i in (tokenizer.eos_token_id, *own) if i is not None)
