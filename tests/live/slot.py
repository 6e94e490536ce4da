"""One slot of the agent, as a process: real listeners, the real runner of a slot, real workers. It obeys lines on standard input.

`python slot.py FOLDER BUILD…`, each BUILD as RELEASE:VERSION. It prints where it serves, then for each line it reads (the number of
a build) runs that build and prints the same number once the build takes the calls and the one before it does no more.
"""

import queue
import sys
from pathlib import Path

from edgeops_agent.core.slot import Build, Run
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.journal import Journal, begin
from edgeops_agent.shell.listen import Listeners
from edgeops_agent.shell.news import Ran
from edgeops_agent.shell.runner import SlotRunner
from edgeops_agent.shell.vacancy import Vacancy

NAME = "tiny"


def main(folder: Path, called: list[str]) -> None:
    """Until standard input ends."""
    begin(Journal(lambda line: bool(print(line.text, file=sys.stderr, flush=True)) or True))
    builds = [Build(release, "base", NAME, int(version)) for release, _, version in (one.partition(":") for one in called)]
    listeners = Listeners.open("127.0.0.1", 0, folder / "run.sock")
    vacancy, told = Vacancy(listeners.sockets), queue.SimpleQueue[object]()
    vacancy.leave("main")
    runner = SlotRunner("main", StateFolder(folder), listeners.sockets, vacancy, "any", told.put, 1.0, checks=())
    runner.start()
    print(listeners.port, flush=True)
    for line in sys.stdin:
        wanted = builds[int(line)]
        runner.do(Run(wanted))
        while told.get() != Ran(wanted):
            pass
        print(line.strip(), flush=True)
    runner.stop()
    vacancy.close()
    listeners.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
