"""What every command has: `--json`, `--context`, one way to print, one way to fail."""

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unfit, Unreachable

from . import context
from .client import Client
from .session import ready
from .show import encoded, safe

P = ParamSpec("P")
Body = Callable[Concatenate["Run", P], "int | None"]
INTERRUPTED = 130
KINDS = (Rejected, Unreachable, Unfit, Misuse)
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress and errors' text on stderr.")]
ContextName = Annotated[
    str | None,
    typer.Option("--context", help="The named context to use instead of the current one.", envvar="EDGEOPS_CONTEXT"),
]


@dataclass(slots=True)
class Run:
    """One run of one command: how its output goes out and which manager it talks to. `failure`: what an error's JSON says more."""

    json: bool = False
    context: str | None = None
    failure: dict[str, Any] = field(default_factory=dict)
    said: bool = False
    _client: Client | None = field(default=None, repr=False)

    def client(self) -> Client:
        """The client of the chosen context; raises Misuse when there is none."""
        if self._client is None:
            self._client = Client(ready(context.load().pick(self.context)))
        return self._client

    def emit(self, data: Any, show: Callable[[], object] | str = "") -> None:
        """Print `data` as JSON with `--json`, else call (or print) `show`."""
        if self.json:
            print(encoded(data), flush=True)
            self.said = True
        elif callable(show):
            show()
        else:
            print(show, flush=True)

    def show(self, draw: Callable[[], object]) -> None:
        """Draw something for people only: not with `--json`."""
        if not self.json:
            draw()

    def note(self, text: str) -> None:
        """Say something to a person (stderr), never part of the output."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the connection, if any."""
        if self._client is not None:
            self._client.close()


def command(
    app: typer.Typer, name: str, options: Mapping[str, inspect.Parameter] | None = None
) -> Callable[[Body[P]], Body[P]]:
    """Add a command whose function takes a `Run` first; `options` are more options, given to its `**` parameter."""

    def add(body: Body[P]) -> Body[P]:
        @functools.wraps(body)
        def wrapper(**values: Any) -> None:
            run = Run(bool(values.pop("json_")), values.pop("context_"))
            code = guarded(run, functools.partial(body, run, **values))
            if code:
                raise typer.Exit(code)

        signature = _signature(body, dict(options or {}))
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        app.command(name)(wrapper)
        return body

    return add


def guarded(run: Run, body: Callable[[], int | None]) -> int:
    """Run `body`; every error becomes a message and its exit code, Ctrl-C becomes 130, a closed pipe is no news.

    With `--json` exactly one object goes to stdout: what the command says, or what went wrong before it said anything.
    """
    as_json = run.json
    try:
        return body() or 0
    except EdgeopsError as error:
        return fail(error, as_json and not run.said, run.failure)
    except KeyboardInterrupt:
        return _unanswered(run, ended=False)
    except typer.Abort as error:
        return _unanswered(run, ended=isinstance(error.__context__, EOFError))
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}; check the path, its permissions and free space"
        return fail(Misuse("os-error", text), as_json and not run.said, run.failure)
    except Exception as error:
        traceback.print_exc()
        return _tell("bug", f"{type(error).__name__}: {error}; please report it", "bug", 1, as_json and not run.said, run.failure)
    finally:
        run.close()


def _unanswered(run: Run, ended: bool) -> int:
    """A question nobody answered: there is no terminal, or Ctrl-C was pressed at it."""
    if ended:
        text = "nobody is there to answer the question above; nothing was done; add --yes, and what `--help` says goes with it"
        return fail(Misuse("not-confirmed", text), run.json and not run.said, run.failure)
    print("interrupted", file=sys.stderr)
    return _tell("interrupted", "stopped by Ctrl-C", "interrupted", INTERRUPTED, run.json and not run.said, run.failure)


def fail(error: EdgeopsError, as_json: bool, more: Mapping[str, Any] | None = None) -> int:
    """Report `error` on stderr (and as a JSON object on stdout) and return its exit code."""
    print(f"error: {safe(error.message)} [{error.reason}]", file=sys.stderr, flush=True)
    kind = next((known.__name__.lower() for known in KINDS if isinstance(error, known)), "error")
    return _tell(error.reason, error.message, kind, error.exit_code, as_json, more)


def _tell(reason: str, message: str, kind: str, code: int, as_json: bool, more: Mapping[str, Any] | None = None) -> int:
    if as_json:
        body = {"reason": reason, "message": message, "kind": kind, "exit_code": code, **(more or {})}
        try:
            print(encoded({"error": body}), flush=True)
        except OSError:
            _drop_output()
    return code


def _drop_output() -> None:
    """Nobody can take what we print: let it go nowhere, so that the interpreter does not complain of it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _signature(body: Callable[..., Any], options: dict[str, inspect.Parameter]) -> inspect.Signature:
    hints = get_type_hints(body, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(inspect.signature(body).parameters.values())[1:]
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    ends = [
        inspect.Parameter("json_", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonFlag),
        inspect.Parameter("context_", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ContextName),
    ]
    mine = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    return inspect.Signature([*mine, *options.values(), *ends])
