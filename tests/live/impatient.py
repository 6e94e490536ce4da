"""`edgeops-agent` that comes back within a second, where others wait for up to a minute, and misses a dead line within seconds.

The same program but for these two waits: `python -P impatient.py run --state …`.
"""

import sys

from edgeops_agent.cli import main
from edgeops_agent.shell import link

link.CAP_S, link.KEEPALIVE_S = 1.0, 2

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
