"""Where benchmark scripts leave their figures: a JSON file with the machine and the versions they ran with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ttl_deploy.files import make_folder, publish_text
from ttl_deploy.runtime.machine import PACKAGES, installed_versions, summarise_machine

FOLDER = Path(__file__).parent / "results"


def store(
    name: str,
    command: str,
    rows: Sequence[Mapping[str, object]],
    *,
    device: Mapping[str, str | int] | None = None,
) -> None:
    """Publish `results/<name>.json`; the machine's host name is left out. `device` describes one beside its CPU."""
    machine = {key: value for key, value in summarise_machine().items() if key != "host"} | dict(device or {})
    content = {"command": command, "rows": list(rows), "machine": machine, "packages": installed_versions(PACKAGES)}
    publish_text(make_folder(FOLDER) / f"{name}.json", json.dumps(content, indent=2) + "\n")
    print(f"stored in {FOLDER.name}/{name}.json")
