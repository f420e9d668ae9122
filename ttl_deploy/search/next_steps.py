"""NEXT_STEPS.txt: the exact commands to type after a search."""

import shlex
from collections.abc import Mapping

from ttl_deploy.files import publish_text
from ttl_deploy.runs.folder import RunFolder


def write_next_steps(run: RunFolder) -> None:
    """Write the commands that ship and check what this run has found, and the one for the reader's own data."""
    settings = run.settings()
    folder = shlex.quote(str(run.path))
    data = shlex.quote(settings.data)
    steps = {
        f"ttl-deploy export {folder} --format onnx": "one verified file: uint8 images in, probabilities out",
        f"ttl-deploy verify {folder} --data {data}": "does it make the trained model's decisions?",
        f"ttl-deploy bench {folder}": "how fast on this machine",
        f"ttl-deploy predict {folder} IMAGES... --out preds.csv": "probabilities for new images",
        f"ttl-deploy front {folder}": "all cuts: what they cost, and which are as good as the full network",
        f"ttl-deploy front {folder} --max-latency 5ms": "choose another cut by rule",
        f"ttl-deploy analyze {folder}": "why this depth: what training changed, what each cut sees, where models look",
        f"ttl-deploy report {folder}": "write the page anew, with all that came since",
    }
    publish_text(
        run.next_steps,
        f"""Read {shlex.quote(str(run.report))} in a browser. Then type:
{_align(steps)}
With your own images (class folders, or a folder with labels.csv: path,label,patient_id,split):
  ttl-deploy search --backbone densenet121 --data YOUR_FOLDER
""",
    )


def _align(steps: Mapping[str, str]) -> str:
    width = max(map(len, steps))
    return "\n".join(f"  {command:<{width}}  # {why}" for command, why in steps.items())
