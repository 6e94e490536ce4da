"""Device classes, from CPU flags, and the session options a release may ask for."""

from collections.abc import Iterable, Mapping

from .errors import Rejected

CLASSES = ("x86-novnni", "x86-vnni", "arm-dot", "arm-nodot", "wasm")
ANY = "any"

# name -> allowed values; ONNX Runtime itself accepts any typo silently.
SESSION_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "session.x64quantprecision": ("0", "1"),
    "session.set_denormal_as_zero": ("0", "1"),
    "session.disable_prepacking": ("0", "1"),
    "session.qdqisint8allowed": ("0", "1"),
}


def classify(machine: str, flags: Iterable[str]) -> str:
    """Device class from `platform.machine()` and CPU flags (/proc/cpuinfo `flags`, `Features`); the cautious one if unsure."""
    have = {flag.lower() for flag in flags}
    if machine.lower() in {"x86_64", "amd64", "i686"}:
        return "x86-vnni" if have & {"avx512_vnni", "avx_vnni"} else "x86-novnni"
    if machine.lower() in {"aarch64", "arm64", "armv8l"}:
        return "arm-dot" if have & {"asimddp", "dotprod"} else "arm-nodot"
    return "wasm" if machine.lower().startswith("wasm") else "arm-nodot"


def check_options(options: Mapping[str, str]) -> None:
    """Raise Rejected("session-option") for a session option that is not on the allow-list."""
    for name, value in options.items():
        if value not in SESSION_OPTIONS.get(name, ()):
            raise Rejected("session-option", f"session option {name}={value!r} is not allowed")
