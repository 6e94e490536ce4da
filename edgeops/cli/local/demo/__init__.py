"""`edgeops demo`: the whole mission flown once with the commands a user would type, real processes and real data.

Knows: the command line, the local inference endpoint, a broker credential where it plays the thief. Does not know: tables, the
agent's inside. Who may enter: `edgeops.cli.app`. No part of the product knows that it is being demonstrated.
"""
