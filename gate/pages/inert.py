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


def inert_lines(value: str, limit: int = 2000) -> str:
    """The same for text whose line breaks matter: lines stay lines, everything else that controls is a blank.

    >>> inert_lines("a\\x1b[0m\\r\\n\\u202eb")
    'a [0m\\n b'
    """
    text = value if len(value) <= limit else value[: limit - 1] + "…"
    return "\n".join(inert(line, limit) for line in text.splitlines())
