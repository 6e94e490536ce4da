"""Errors, sorted by who must act. Every error carries a stable kebab-case `reason` for machines and a message for people."""


class EdgeopsError(Exception):
    """The root of all our errors: `reason` is stable and machine-readable, the message says what to do next."""

    exit_code = 1

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"


class Rejected(EdgeopsError):
    """The publisher must act: a document, signature, model or frame is wrong."""

    exit_code = 3


class Unreachable(EdgeopsError):
    """The transport must act: nobody answers, or answers too late."""

    exit_code = 4


class Unfit(EdgeopsError):
    """The device must act: it lacks memory, disk, runtime, capability or hardware."""

    exit_code = 5


class Misuse(EdgeopsError):
    """The caller must act: wrong arguments, unknown names, wrong role."""

    exit_code = 2
