"""Trick cards for people: the list, one card, and `tricks/README.md`."""

from pathlib import Path
from typing import Any

from bench.store import write_atomically
from bench.trick import find, registry

ARROWS = {-1: "lower", 0: "no change or either way", 1: "higher"}


def table() -> str:
    """Return one line a trick."""
    width = max(map(len, registry()))
    lines = [f"{name:{width}}  {cls.card()['summary']}" for name, cls in registry().items()]
    return "\n".join([*lines, "", "bench tricks NAME shows one trick's card."])


def card(name: str) -> str:
    """Return one trick's card as text; raise `Refused` for an unknown trick."""
    return "\n".join(_lines(find(name).card()))


def _allowed(field: dict[str, Any]) -> str:
    if field["among"]:
        return " | ".join(_word(value) for value in field["among"])
    return f"{_word(field['span'][0])} to {_word(field['span'][1])}"


def _word(value: Any) -> str:
    """Return a value as a grid file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _lines(shown: dict[str, Any]) -> list[str]:
    lines = [
        f"{shown['name']}{' (a control)' if shown['control'] else ''}",
        "",
        shown["summary"],
        "",
        shown["doc"],
        "",
    ]
    for claim in shown["claims"]:
        lines += [f"claim   {claim['text']} ({claim['metric']}: {ARROWS[claim['direction']]})"]
        lines += [f"        {claim['source']}{'  ' + claim['url'] if claim['url'] else ''}"]
    lines += [""] if shown["fields"] else []
    for field in shown["fields"]:
        off = f", off at {_word(field['off'])}" if field["off"] is not None else ""
        lines += [f"{field['kind']:7} {field['name']} = {_word(field['default'])}  ({_allowed(field)}{off})"]
        lines += [f"        {field['doc']}"]
    return [line.rstrip() for line in lines]


def readme() -> str:
    """Return tricks/README.md."""
    lines = [
        "# Tricks",
        "",
        "Written by `bench tricks --write` from the files in this folder; a test fails when it is stale.",
        "",
        "| trick | what it does | settings (default; allowed; off) | claim | source |",
        "|---|---|---|---|---|",
    ]
    for name, cls in registry().items():
        shown = cls.card()
        settings = "<br>".join(
            f"`{f['name']}` {_word(f['default'])}; {_allowed(f).replace('|', 'or')}"
            + (f"; off {_word(f['off'])}" if f["off"] is not None else "")
            for f in shown["fields"]
        )
        claims = "<br>".join(claim["text"] for claim in shown["claims"])
        sources = "<br>".join(
            f"[{c['source']}]({c['url']})" if c["url"] else c["source"] for c in shown["claims"]
        )
        control = " (control)" if shown["control"] else ""
        lines.append(
            f"| [`{name}`]({name}.py){control} | {shown['summary']} | {settings} | {claims} | {sources} |"
        )
    return "\n".join(lines) + "\n"


def write() -> Path:
    """Write tricks/README.md beside the tricks and return its path."""
    import tricks

    path = Path(tricks.__path__[0]) / "README.md"
    write_atomically(path, readme().encode())
    return path
