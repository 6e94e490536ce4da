"""HTTP: one file per noun under /api/v1, bearer tokens with roles, problem documents for every error.

Knows: paths, JSON shapes, status codes. Does not know: tables, keys, MQTT; every answer comes from `edgeops.manager`.
Who may enter: `cli` only, through `edgeops.api.serve`; everybody else through HTTP.
"""
