"""The device's house: the agent, and the in-process API for programs on the same device.

    from edgeops_agent import Model
    with Model.open("/var/lib/edgeops-agent") as model:  # the agent's folder
        outputs = model.infer({"x": array})

`Client` asks the agent's local inference server instead, over its Unix socket or loopback TCP. Both are imported when first
used, so that `import edgeops_agent` costs nothing. Knows: nothing by itself; `core` has the rules, `shell` the device, `sim`
many straw devices. Who may enter: programs on the device; the manager never. Leaves only for edgeops.wire, edgeops.parcel and
edgeops.sketch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .shell.model import Model

__all__ = ["Client", "Model"]


def __getattr__(name: str) -> Any:
    if name == "Model":
        from .shell.model import Model

        return Model
    if name == "Client":
        from .client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
