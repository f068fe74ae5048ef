"""What `bench verify` and `bench doctor` say: one line a check."""

from collections.abc import Iterable
from typing import NamedTuple


class Check(NamedTuple):
    """What one check found: `level` is ok, note (nothing wrong, but worth knowing), failed or wrong."""

    name: str
    level: str
    text: str

    @property
    def line(self) -> str:
        """The check as a line for people."""
        return f"{self.level:<6}  {self.name}: {self.text}"


def checked(name: str, problems: Iterable[str], fine: str) -> Check:
    """Return a failed check that names the first problems, or a fine one."""
    some = list(problems)
    if not some:
        return Check(name, "ok", fine)
    more = f"; and {len(some) - 3} more" if len(some) > 3 else ""
    return Check(name, "failed", "; ".join(some[:3]) + more)
