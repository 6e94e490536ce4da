"""The in-process API: the committed model of a slot, opened in the caller's own process, with a lease that says so."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgeops.wire.errors import Misuse, Unfit

from .leases import Lease
from .runnable import Runnable
from .served import Served
from .session import Engine, open_session
from .tensors import Array


class Model:
    """The committed model of a slot in this process. Use as a context manager, or call `close`.

    It keeps serving what it opened, also when the agent commits another one and removes the files, until `refresh` finds that.
    A candidate on trial is never opened, so a rollback changes nothing here. The lease tells the agent which digest is served.
    """

    def __init__(self, state_dir: Path, slot: str, runnable: Runnable) -> None:
        self._state_dir = state_dir
        self._slot = slot
        self._served = Served(runnable, Engine(open_session(runnable)))
        self._closed = False
        self._lease = Lease(state_dir)
        self._say()

    @classmethod
    def open(cls, state_dir: str | Path, slot: str = "main") -> "Model":
        """Open the committed model of `slot`; raises Misuse("no-active-model") when there is none, Unfit when it does not load."""
        folder = Path(state_dir)
        while True:
            runnable = _active(folder, slot)
            try:
                return cls(folder, slot, runnable)
            except Unfit:
                if _active(folder, slot) == runnable:
                    raise  # otherwise it was replaced, and its files swept, while we opened it

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on arrays by input name; returns fresh arrays by output name.

        Shapes and dtypes must be the model's (see `inputs`): raises Misuse otherwise, Unfit when the model fails.
        """
        return self._served.infer(inputs)

    def refresh(self) -> bool:
        """Change to the slot's committed model if it is another one than this; True when it was changed.

        Calls running in other threads end on the old model; when the new one does not load, the old one stays.
        """
        self._open_or_raise()
        runnable = _active(self._state_dir, self._slot)
        if runnable == self._served.runnable:
            return False
        self._served = Served(runnable, Engine(open_session(runnable)))
        self._say()
        return True

    def close(self) -> None:
        """Give the lease back."""
        if not self._closed:
            self._closed = True
            self._lease.give_back()

    @property
    def name(self) -> str:
        """The model's name."""
        return self._served.runnable.model

    @property
    def version(self) -> int:
        """The version that `infer` runs."""
        return self._served.runnable.version

    @property
    def digest(self) -> str:
        """The digest of the release that `infer` runs."""
        return self._served.runnable.digest

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Input names with dtype and shape; -1 stands for any size."""
        return {spec.name: (spec.dtype, spec.shape) for spec in self._served.engine.inputs}

    @property
    def outputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Output names with dtype and shape; -1 stands for any size."""
        return {spec.name: (spec.dtype, spec.shape) for spec in self._served.engine.outputs}

    def counters(self) -> dict[str, Any]:
        """Calls, errors and latency percentiles (microseconds) since the model was opened."""
        return self._served.counters()

    def __enter__(self) -> "Model":
        self._open_or_raise()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self) -> None:
        runnable = self._served.runnable
        self._lease.hold(
            {"slot": self._slot, "model": runnable.model, "version": runnable.version, "digest": runnable.digest}
        )

    def _open_or_raise(self) -> None:
        if self._closed:
            raise Misuse("model-closed", "this model was closed; open it again")


def _active(state_dir: Path, slot: str) -> Runnable:
    path = state_dir / "slots" / f"{slot}.json"
    try:
        return Runnable.from_json(path.read_bytes())
    except FileNotFoundError:
        raise Misuse(
            "no-active-model", f"slot {slot} has no committed model in {state_dir}; is this the agent's state folder?"
        ) from None
    except OSError as error:
        raise Misuse("state-folder", f"{path} cannot be read: {error.strerror}; run as the agent's user") from None
