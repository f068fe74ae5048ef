"""What a user did wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 2_000  # characters of a message


class Refused(Exception):
    """Input that is refused: the message is one readable line, the command exits with 2.

    What the input brings into it cannot break the line, command the terminal, or go on for ever.
    """

    def __init__(self, message: str) -> None:
        shown = printable(message)
        super().__init__(shown if len(shown) <= LONGEST else f"{shown[:1500]} ... {shown[-400:]}")


def printable(text: str) -> str:
    """Return text with what does not print, control characters and line ends among it, written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Lost(Exception):
    """What the work needs went away: the message is one readable line, the command exits with 1 and can go on later."""


def nearest(word: object, options: Iterable[object]) -> str:
    """Return ` (did you mean "x"?)` for the option spelt most like `word`, or an empty string."""
    close = get_close_matches(str(word), [str(option) for option in options], n=1, cutoff=0.5)
    return f' (did you mean "{close[0]}"?)' if close else ""
