"""NEXT_STEPS.txt: the exact commands to type after a search."""

import shlex

from ttl_deploy.files import publish_text
from ttl_deploy.runs.folder import RunFolder


def write_next_steps(run: RunFolder) -> None:
    """Write the commands that ship and check what this run has found, and the one for the reader's own data."""
    settings = run.settings()
    folder = shlex.quote(str(run.path))
    data = shlex.quote(settings.data)
    publish_text(
        run.next_steps,
        f"""Next, type:
  ttl-deploy export {folder} --format onnx       # one verified file: uint8 images in, probabilities out
  ttl-deploy verify {folder} --data {data}       # same decisions as the trained model?
  ttl-deploy bench {folder}                      # how fast on this machine
  ttl-deploy predict {folder} IMAGES... --out preds.csv
  ttl-deploy front {folder} --max-latency 5ms    # choose another cut by rule
Read {shlex.quote(str(run.report))} in a browser.
With your own images (class folders, or a folder with labels.csv: path,label,patient_id,split):
  ttl-deploy search --backbone densenet121 --data YOUR_FOLDER
""",
    )
