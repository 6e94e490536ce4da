"""An error that carries more than a sentence."""

from edgeops.wire.errors import Misuse


class Missing(Misuse):
    """Objects a release names that have not been uploaded."""

    def __init__(self, digests: list[str]) -> None:
        shown = ", ".join(digest[:12] for digest in digests[:3]) + (" …" if len(digests) > 3 else "")
        super().__init__("missing-objects", f"{len(digests)} objects the release names are not here ({shown}); upload them first")
        self.digests = digests
