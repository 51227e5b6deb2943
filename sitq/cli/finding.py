"""What `sitq doctor` finds: about what, how bad it is, and what to do."""

from typing import Final, Literal, NamedTuple, TypeAlias

Verdict: TypeAlias = Literal["OK", "WARN", "FAIL"]
COLOURS: Final[dict[Verdict, str]] = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}


class Finding(NamedTuple):
    verdict: Verdict
    about: str
    found: str
    to_do: str = ""
