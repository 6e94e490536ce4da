"""The local half of the command line: what happens on the caller's own machine.

Knows: the manager's folder (init, up, key, doctor), the forge and signing (model add, release), fleet files. The release key
is read here, in the caller's process, and never travels. Does not know: tables. Who may enter: `edgeops.cli.app`.
"""
