"""Foreign text made harmless before it is shown: names, prompts and messages that somebody else wrote."""

LONGEST = 400


def inert(value: object, limit: int = LONGEST) -> str:
    """The text without control characters, terminal escapes or changes of writing direction, cut to ``limit``.

    Not escaped: whoever writes it into HTML or Markdown does that.

    >>> inert("a\\x1b[31m\\u202eb\\n"), inert("abcdef", 4)
    ('a [31m b ', 'abc…')
    """
    text = str(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else " " for c in cut)
