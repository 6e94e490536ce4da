"""`python -m edgeops_agent.cli`: the same as `edgeops-agent`."""

import sys

from .entry import main

if __name__ == "__main__":
    sys.exit(main())
