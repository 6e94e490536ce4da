"""What one check of the doctor has found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is what was looked at, `detail` how it is; `advice` what to do next, empty when nothing is."""

    check: str
    level: Level
    detail: str
    advice: str = ""
