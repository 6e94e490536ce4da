"""Devices beyond the five agents: straws, registered in one go and run in one process that the stage starts and ends."""

import csv
import os

from .stage import Stage

NAME = "straws"


def start_straws(stage: Stage, count: int, labels: tuple[str, ...]) -> None:
    """Register `count` straws with these labels and start the process that enrols and runs them."""
    listed, tokens = stage.folder / f"{NAME}.csv", stage.folder / f"{NAME}.tokens"
    with listed.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "kind"))
        rows.writerows((f"straw-{number:0{len(str(count))}d}", "straw") for number in range(1, count + 1))
    made = stage.edgeops("device", "register", "--from", listed.name, *labels)["devices"]
    with os.fdopen(os.open(tokens, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{device['token']}\n" for device in made)
    words = ("-m", "edgeops_agent.sim", "--tokens", tokens.name, "--state", NAME)
    stage.say(f"  $ python3 {' '.join(words)} &")
    stage.spawn(NAME, "python3", *words, "--parent", str(os.getpid()))
