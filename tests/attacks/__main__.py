"""`make attacks`: every attack by name with the reason it met, then one line that counts them. Exit 1 unless all were refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
# Where attacks are tried. A test counts by calling the fixture `score`.
PLACES = (
    "attacks", "broker/test_attacks.py", "api/test_enrolment_inputs.py", "api/test_oidc.py", "api/test_revocation.py",
    "wire/test_chain.py",
)  # fmt: skip


class Count:
    """Gathers what the fixture `score` noted, and what was tried in vain."""

    def __init__(self) -> None:
        self.attacks: dict[str, str] = {}
        self.honest: set[str] = set()
        self.mutants = [0, 0]
        self.failed: list[str] = []
        self.twice: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One report of any process."""
        if report.failed or report.outcome == "skipped":
            self.failed.append(report.nodeid)
        if report.when != "call" or not report.passed:
            return
        for name, value in report.user_properties:
            self._note(name, value)

    def _note(self, name: str, value: object) -> None:
        match name, value:
            case "attack", (str(attack), str(reason)):
                if attack in self.attacks:
                    self.twice.append(attack)
                self.attacks[attack] = reason
            case "honest", str(flow):
                self.honest.add(flow)
            case "mutants", (int(refused), int(tried)):
                self.mutants[0] += refused
                self.mutants[1] += tried

    def lines(self) -> Iterator[str]:
        """The table and the line."""
        width = max(map(len, self.attacks), default=0)
        yield from (f"  {attack:<{width}}  {reason}" for attack, reason in sorted(self.attacks.items()))
        yield from (f"FAILED OR NOT TRIED: {name}" for name in self.failed)
        yield from (f"TWICE IN THE TABLE: {name}" for name in self.twice)
        # A test that failed is an attack that was not refused, or an honest flow that was: it counts against all.
        lost = len(self.failed) + len(self.twice)
        done, flows = len(self.attacks), len(self.honest)
        mutants = f"{self.mutants[0]}/{self.mutants[1]}"
        yield f"attacks {done}/{done + lost} refused, mutants {mutants} refused, honest {flows}/{flows + lost} accepted"

    @property
    def ok(self) -> bool:
        """Whether everything was as it must be, and enough of it."""
        refused, tried = self.mutants
        return not self.failed and not self.twice and len(self.attacks) >= 60 and refused == tried >= 10_000 and bool(self.honest)


def main() -> int:
    """Run the tests that attack, and count."""
    count = Count()
    places = [str(HERE / place) for place in PLACES if (HERE / place).exists()]
    code = pytest.main(["-q", "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal", *places, *sys.argv[1:]], plugins=[count])
    print(*count.lines(), sep="\n")
    return int(code) or int(not count.ok)


if __name__ == "__main__":
    sys.exit(main())
