"""The remote half of the command line: everything here is a request to the manager's HTTP API and a way to show the answer.

Knows: the API's nouns and how a person wants to read them. Does not know: tables, keys, the manager's folder, the forge.
Who may enter: `edgeops.cli.app`, and the local half for uploading what it signed.
"""
