"""`ttl-deploy doctor`: what this machine can do."""

from typing import Annotated

import typer

NAME = "doctor"


def run(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Tell which parts are installed, which targets run here, in which precisions, and what is missing for others."""
    import json

    from ttl_deploy.runtime.machine import examine

    from .tables import print_doctor

    found = examine()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print_doctor(found)
