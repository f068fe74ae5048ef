"""What a user did wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class Refused(Exception):
    """Input that is refused: the message is one readable line, the command exits with 2."""


class Lost(Exception):
    """What the work needs went away: the message is one readable line, the command exits with 1 and can go on later."""


def nearest(word: object, options: Iterable[object]) -> str:
    """Return ` (did you mean "x"?)` for the option spelt most like `word`, or an empty string."""
    close = get_close_matches(str(word), [str(option) for option in options], n=1, cutoff=0.5)
    return f' (did you mean "{close[0]}"?)' if close else ""
