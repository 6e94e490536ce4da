"""With which token a command goes to the manager: the environment's, the context's, or one renewed because that has ended."""

import os
import time
from dataclasses import replace

from edgeops.wire.errors import Unreachable

from . import context
from .client import Client
from .device_grant import Issuer, Way, logged_in

EARLY_S = 30


def ready(chosen: context.Context) -> context.Context:
    """`chosen` with a token that holds: $EDGEOPS_TOKEN before any other; a login that has ended is renewed and stored."""
    if given := os.environ.get("EDGEOPS_TOKEN", "").strip():
        return replace(chosen, token=given, refresh="", expires=0)
    if not chosen.refresh or not chosen.expires or chosen.expires > time.time() + EARLY_S:
        return chosen
    way = way_of(chosen)
    issuer = Issuer(way)
    try:
        entered = logged_in(chosen, way, issuer.refresh(chosen.refresh))
    finally:
        issuer.close()
    context.save(context.load().renewed(entered))
    return entered


def way_of(given: context.Context) -> Way:
    """How people log in at a manager, asked without any token."""
    client = Client(replace(given, token=""))
    try:
        told = client.get("/login")
        return Way(str(told["issuer"]), str(told["client"]), str(told["audience"]))
    except (KeyError, TypeError):
        raise Unreachable("not-a-manager", f"{given.url} does not say how to log in; is it older than this command line?") from None
    finally:
        client.close()
