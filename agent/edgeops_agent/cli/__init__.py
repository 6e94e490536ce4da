"""`edgeops-agent`: enrol a device, run the agent, look at it, answer for its people. argparse: nothing is installed for it.

Knows: arguments, exit codes, how answers look to people and to programs; one file per noun. Does not know: any rule, nor how
anything is kept; it asks the shell. Who may enter: the console script, `python -m edgeops_agent.cli`, nobody else. Leaves for the
shell and the wire's errors.
"""

from .entry import main
from .parser import build_parser

__all__ = ["build_parser", "main"]
