"""The `edgeops` command: how a person or a script drives a fleet.

Knows: arguments, help texts, tables, exit codes, named contexts, how to ask the manager over HTTPS. Two halves: `remote` (HTTP
only, one file per noun) and `local` (what happens on the caller's own machine: init, up, keys, forge and signing). Does not
know: rules, database tables, MQTT. Who may enter: nobody; this is the front door. On a base install only `entry` and
`signals` may be imported.

Exit codes: 0 done, 1 a bug, 2 misuse, 3 rejected (a document, model or gate), 4 unreachable, 5 unfit, 6 a watched rollout did not
finish, 130 interrupted, 143 terminated.
"""
