"""The flight: nine steps, each a few commands, each checked. What is found goes into `Facts`; a step that fails raises Surprise."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .careless import foreign_golden, hungry
from .facts import REAL, Facts
from .stage import Stage, Surprise
from .straws import start_straws
from .thief import Credential, Thief, attack
from .traffic import Programs

QUICK = ("--slot", "main", "--dwell-s", "1", "--trial-window-s", "4", "--max-failures", "0", "--success-fraction", "1")
DARK = "pi-03"
VICTIM, ACCOMPLICE = "pi-01", "pi-05"
TELEMETRY_S = "2"
BERLIN = ("--label", "site=berlin")


@dataclass(slots=True)
class Flight:
    """One demo: the stage, the seed of everything random, the step titles as they are reached. Devices beyond REAL are straws."""

    stage: Stage
    seed: int
    title: Callable[[str], None]
    broker: str = "auto"
    size: int = REAL
    facts: Facts = field(default_factory=Facts)
    old_orders: bytes | None = None
    health: dict[str, Any] = field(default_factory=dict)
    programs: Programs | None = None
    dark_before: int = 0

    @property
    def site(self) -> Path:
        """The manager's folder."""
        return self.stage.folder / "site"

    def fly(self) -> Facts:
        """All steps in order."""
        for step in (
            self.manager, self.first_model, self.devices, self.first_rollout, self.serve, self.better_and_worse, self.drift,
            self.thieves, self.count,
        ):  # fmt: skip
            step()
        return self.facts

    def manager(self) -> None:
        """1. A manager: keys, database, API and broker."""
        self.title("A manager: keys, certificates, database, then its API and broker")
        stage = self.stage
        words = ("--fleet", "demo", "--address", "127.0.0.1", "--https-port", "0", "--mqtt-port", "0", "--broker", self.broker)
        stage.edgeops("init", str(self.site), *words)
        stage.say("  $ edgeops up site &")
        stage.spawn("manager", "edgeops", "up", str(self.site))
        self.health = stage.until("the manager answers", lambda: self._health(), 60)
        stage.say(f"    broker: {self.health['broker']['kind']} on port {self.health['broker']['port']}")

    def _health(self) -> dict[str, Any] | None:
        try:
            found = self.stage.edgeops("health", quiet=True)
        except Surprise:
            return None
        return found if found.get("status") == "ok" else None

    def first_model(self) -> None:
        """2. A real model becomes a signed release."""
        self.title("Train a digit classifier, then quantize, evaluate, sign and upload it")
        self.stage.python("-m", "edgeops.cli.local.demo.digits", "data", "--seed", str(self.seed))
        self.add(1)

    def add(self, version: int) -> None:
        """`model add` of one version, its table shown."""
        data = ("--calib", "data/calib.npz", "--eval", "data/eval.npz", "--reference", "data/reference.npz")
        self.stage.show(
            "model", "add", f"digits:{version}", f"data/digits-{version}.skops", *data, "--folder", str(self.site),
            "--out", f"releases/digits-{version}",
        )  # fmt: skip

    def devices(self) -> None:
        """3. Five devices enrol and run, each a process of its own."""
        straws = self.size - REAL
        more = f", and {straws} straw devices in one process" if straws else ""
        self.title(f"Five devices: registered here, enrolled and run as processes of their own{more}")
        stage = self.stage
        names = [f"pi-{number:02d}" for number in range(1, REAL + 1)]
        for name in names:
            token = stage.edgeops("device", "register", name, *BERLIN, "--label", "kind=agent")["token"]
            folder, options = str(stage.folder / name), ("--port", "0", "--telemetry-s", TELEMETRY_S)
            stage.say(f"  $ edgeops-agent enroll {token[:16]}… --state {name}")
            stage.say(f"  $ edgeops-agent run --state {name} {' '.join(options)} &")
            stage.agent("enroll", token, "--state", folder)
            stage.spawn(name, "edgeops-agent", "run", "--state", folder, *options)
        if straws:
            start_straws(stage, straws, BERLIN)
        stage.until("all devices are online", lambda: self._online() == self.size, 120 + self.size)
        self.facts.devices_enrolled = self._online()
        self.programs = Programs(
            stage.folder / "data" / "field.npz", {name: stage.folder / name for name in names}, self.seed
        )

    def _status(self) -> list[dict[str, Any]]:
        devices: list[dict[str, Any]] = self.stage.edgeops("status", quiet=True)["devices"]
        return devices

    def _online(self) -> int:
        return sum(d["status"] == "enrolled" and d["presence"] == "online" for d in self._status())

    def rollout(self, version: int, ends: str) -> dict[str, Any]:
        """Start a rollout and watch it to its end, which must be `ends`."""
        stage, to = self.stage, "site=berlin"
        if self.programs is None:
            raise Surprise("demo-order", "no devices yet")
        if ends == "halted" and self.size > REAL:
            to = "site=berlin,kind=agent"
            stage.say("  straws run no model, so they could not notice: this release goes to the five agents only")
        with self.programs.steady("digits") as answers:
            started = stage.edgeops("rollout", "start", f"digits:{version}", "--to", to, "--waves", "1,100%", *QUICK)
            stage.show("rollout", "watch", started["id"], "--timeout", str(150 + self.size), expect=0 if ends == "finished" else 6)
        self.facts.failed_calls += answers.failed
        versions = "/".join(sorted(answers.versions))
        stage.say(f"    meanwhile {answers.calls} calls were answered by version {versions}, {answers.failed} failed")
        data = stage.edgeops("rollout", "show", started["id"], quiet=True)
        if data["status"] != ends:
            raise Surprise("demo-rollout", f"rollout of digits:{version} ended {data['status']}, not {ends}: {data['why']}")
        counts = data["counts"]
        if ends == "halted":
            stage.show("rollout", "show", started["id"])
        for device in data["devices"]:
            if device["reason"]:
                self.facts.reasons.append(f"digits:{version} on {device['device']}: {device['reason']}")
        self.facts.committed += counts["committed"] + counts["unproven"]
        self.facts.rolled_back += counts["rolled_back"]
        self.facts.rollouts_halted += data["status"] == "halted"
        return data

    def first_rollout(self) -> None:
        """4. The release goes out in two waves."""
        self.title("Roll digits:1 out: one device first, then all")
        self.rollout(1, "finished")
        self.old_orders = self._steal_orders()

    def _steal_orders(self) -> bytes:
        """The orders retained for the victim, read with the manager's stolen broker credential, for a later replay."""
        with self._thief("manager") as thief:
            orders = thief.take_retained(VICTIM)
        if orders is None:
            raise Surprise("demo-thief", "the broker retained no orders for the victim")
        return orders

    def _thief(self, who: str) -> Thief:
        broker, pki, folder = self.health["broker"], self.site / "pki", self.stage.folder / who
        if who == "manager":
            credential = Credential(who, pki / "ca.crt", pki / "manager.crt", pki / "manager.key")
        else:
            credential = Credential(who, pki / "ca.crt", folder / "tls.pem", folder / "tls.pem")
        return Thief(broker["host"], broker["port"], credential)

    def serve(self) -> None:
        """5. Programs on the devices ask the model next door."""
        self.title("Programs on the devices classify fresh images through the local endpoint")
        self._traffic(400)
        self.stage.until("latency arrives", lambda: self._told() >= 400 * REAL * 0.9, 30)
        self.stage.show("status", *(("--selector", "kind=agent") if self.size > REAL else ()))

    def _traffic(self, calls: int, dark: str | None = None) -> None:
        if self.programs is None:
            raise Surprise("demo-order", "no devices yet")
        for name, answers in self.programs.run(calls, "digits", dark).items():
            note = "  (its camera is dark and shifted)" if name == dark else ""
            share = answers.right / answers.calls
            self.stage.say(f"    {name}: {answers.calls} images, {share:.1%} right, by version {'/'.join(answers.versions)}{note}")

    def _told(self) -> int:
        """Inferences that telemetry has told the manager of."""
        return sum(int(row["calls"]) for row in self.stage.edgeops("telemetry", quiet=True)["telemetry"])

    def better_and_worse(self) -> None:
        """6. A better model goes out; two careless releases come back by themselves."""
        self.title("digits:2 is better and goes out; two careless releases roll back by themselves")
        self.add(2)
        self.rollout(2, "finished")
        releases = self.stage.folder / "releases"
        self.careless_golden()
        self.stage.say("  careless release 4: a debugging branch that needs far more memory than devices allow")
        hungry(releases / "digits-2", releases / "digits-4.onnx", releases / "digits-4", 4)
        self._careless(4)
        self.stage.until("every device runs digits:2 again", lambda: self.all_run("digits:2"), 60)

    def careless_golden(self) -> None:
        """A release whose golden vectors belong to another model rolls back on its first device."""
        self.stage.say("  careless release 3: digits:2 with the golden vectors of digits:1")
        releases = self.stage.folder / "releases"
        foreign_golden(releases / "digits-2", releases / "digits-1", releases / "digits-3", 3)
        self._careless(3)

    def _careless(self, version: int) -> None:
        """What a careless publisher does with a folder: sign, upload, roll out."""
        folder = f"releases/digits-{version}"
        self.stage.edgeops("release", "sign", folder, "--folder", str(self.site))
        self.stage.edgeops("release", "upload", folder)
        self.rollout(version, "halted")

    def all_run(self, name: str) -> bool:
        """Whether every device reports to run `name`."""
        return all(device["slots"].get("main") == name for device in self._status())

    def drift(self) -> None:
        """7. One camera goes dark; only its device raises the alarm."""
        self.title(f"The camera of {DARK} goes dark and shifts; the others see what they always saw")
        self._traffic(600, DARK)
        self.stage.until("the drift alarm", lambda: DARK in self._alarms(), 60)
        self.stage.show("drift")

    def _alarms(self) -> set[str]:
        return {device["id"] for device in self._status() if (device["drift"] or {}).get("alarm")}

    def thieves(self) -> None:
        """8. A tampered frame and a replayed order, by two kinds of thief."""
        self.title("Two thieves send a tampered frame and a replayed order to pi-01, twice each")
        self.thief_with_a_certificate()
        self.stage.say("  with the manager's stolen broker credential, but no signing key: the device refuses")
        with self._thief("manager") as thief:
            attack(thief, VICTIM, self.orders())
        self.stage.until("the device has refused and said so", lambda: min(self._refusals()) >= 2, 60)

    def thief_with_a_certificate(self) -> None:
        """An enrolled device turns on another one; the broker does not let it."""
        self.stage.say(f"  with the certificate of {ACCOMPLICE}: the broker refuses")
        with self._thief(ACCOMPLICE) as thief:
            attack(thief, VICTIM, self.orders())
        self.stage.until("the broker has refused", lambda: self._denied() >= 4, 30)
        self.facts.acl_denied = self._denied()

    def orders(self) -> bytes:
        """The recorded orders of the victim's first rollout."""
        if self.old_orders is None:
            raise Surprise("demo-order", "no orders were recorded")
        return self.old_orders

    def _denied(self) -> int:
        health = self._health()
        return int(health["acl_denied"]) if health else 0

    def _refusals(self) -> tuple[int, int]:
        """(blocks, desired) refused, from the victim's own signed report."""
        for device in self._status():
            if device["id"] == VICTIM:
                counters = device["counters"]
                return counters.get("refused_blocks", 0), counters.get("refused_desired", 0)
        return 0, 0

    def count(self) -> None:
        """9. Everything once more, from the manager's API."""
        self.title("What the manager knows in the end")
        facts, alarms = self.facts, self._alarms()
        facts.drift_alarms, facts.false_drift_alarms = len(alarms & {DARK}), len(alarms - {DARK})
        facts.refused_blocks, facts.refused_desired = self._refusals()
        facts.acl_denied = self._denied()
        (fleet,) = self.stage.edgeops("telemetry", "--by", "fleet", quiet=True)["telemetry"]
        facts.inferences, facts.latency_p50_us, facts.latency_p99_us = fleet["calls"], fleet["p50_us"], fleet["p99_us"]
        self.stage.show("telemetry", "--by", "release")
        self.stage.show("status")


def clear(folder: Path) -> None:
    """Delete the scratch folder."""
    shutil.rmtree(folder, ignore_errors=True)
