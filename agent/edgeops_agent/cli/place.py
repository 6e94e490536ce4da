"""Which agent's folder is meant, and as whom it is looked at."""

import os
from pathlib import Path

DEFAULT_STATE = Path(os.environ.get("EDGEOPS_AGENT_STATE", "~/.local/state/edgeops-agent")).expanduser()


def as_its_owner(state: Path) -> None:
    """Root becomes the folder's user, for the rest of this command: it sees what the agent sees, and leaves nothing of root's."""
    if os.geteuid() != 0:
        return
    try:
        status = state.stat()
    except OSError:
        return
    if status.st_uid != 0:
        os.setgroups([])
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
