"""The tree of commands, put together from both halves."""

import typer

from edgeops import __version__
from edgeops.wire.errors import Misuse

from . import contexts
from .frame import INTERRUPTED, command, fail
from .local import audit as audit_check
from .local import broker, ca, clock, doctor, export, fleet, floor, init, key, model, release, site, up
from .local import root as root_document
from .local.demo.command import demo
from .remote import audit, devices, login, observe, pending, register, releases, rollouts, status, tokens

app = typer.Typer(
    name="edgeops", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Deploy, watch and roll back machine-learning models on fleets of edge devices.",
)  # fmt: skip
release_app = typer.Typer(help="Sign, upload and look at releases.", no_args_is_help=True)
audit_app = typer.Typer(help="Look at the audit log, take it elsewhere, and verify it.", no_args_is_help=True)
model_app = typer.Typer(help="Turn a model into a signed release; list models.", no_args_is_help=True)

command(app, "init")(init.init)
command(app, "up")(up.up)
command(app, "doctor")(doctor.doctor)
command(app, "demo")(demo)
command(app, "login")(login.login)
command(app, "status")(status.status)
command(app, "health")(status.health)
command(app, "drift")(observe.drift)
command(app, "telemetry")(observe.telemetry)
app.add_typer(register.app, name="device")
app.add_typer(model_app, name="model")
app.add_typer(release_app, name="release")
app.add_typer(rollouts.app, name="rollout")
app.add_typer(tokens.app, name="token")
app.add_typer(key.app, name="key")
app.add_typer(root_document.app, name="root")
app.add_typer(floor.app, name="floor")
app.add_typer(site.app, name="site")
app.add_typer(broker.app, name="broker")
app.add_typer(ca.app, name="ca")
app.add_typer(audit_app, name="audit")
app.add_typer(clock.app, name="time")
app.add_typer(fleet.app, name="fleet")
app.add_typer(contexts.app, name="context")
command(register.app, "list")(devices.list_)
command(register.app, "show")(devices.show_)
command(register.app, "label")(devices.label_)
command(register.app, "revoke")(devices.revoke)
command(register.app, "decommission")(devices.decommission)
command(register.app, "release-quarantine")(devices.release)
command(register.app, "pending")(pending.pending)
command(register.app, "approve")(pending.approve)
command(register.app, "reject")(pending.reject)
command(audit_app, "show")(audit.show_)
command(audit_app, "verify")(audit_check.verify)
command(audit_app, "export")(audit.export)
command(model_app, "add")(model.add)
command(model_app, "list")(releases.models)
command(release_app, "list")(releases.releases)
command(release_app, "show")(release.show_)
command(release_app, "sign")(release.sign)
command(release_app, "upload")(release.upload)
command(release_app, "export")(export.export)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgeops {__version__}")
        raise typer.Exit


@app.callback()
def root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")) -> None:
    """Deploy, watch and roll back machine-learning models on fleets of edge devices."""


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code; nothing escapes as a traceback but a bug."""
    try:
        answer = app(args=arguments, prog_name="edgeops", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _usage(error, "--json" in arguments)


def _usage(error: Exception, as_json: bool) -> int:
    said = error.format_message()  # type: ignore[attr-defined]
    place = getattr(getattr(error, "ctx", None), "command_path", "edgeops")
    if said.startswith("Usage:"):
        print(said)
        return 2
    return fail(Misuse("usage", f"{said.rstrip('.')}; see `{place} --help`"), as_json)
