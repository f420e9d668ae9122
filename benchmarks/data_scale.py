"""How long a search over 200,000 images takes until the first training could begin, and how much memory.

Run:  python benchmarks/data_scale.py [--images 200000] [--against CHECKOUT] [--write]
Tiny distinct PNG files in 400 folders, and a table with patients and three more columns, are made in a temporary
folder (about 0.8 GB), with a cache of their own (about 1 GB), and removed at the end. Every row is a fresh process:
`first` finds nothing cached, `again` is a new run over the same images, `other labels` a third one that has its
classes renamed. The steps are those of a search: read, check and split the data, store the manifest in the run folder,
load it as a training's process does, and open the decoded images (32 by 32 pixels). `search` is `run_study` as a whole
from the start of its process, up to where it would begin to train; `search, small` the same with a phantom of few
hundred images, so what is not due to the data. `--against` measures another version as well, in the folder CHECKOUT.
"""

import argparse
import csv
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

from results import store

HERE = Path(__file__).resolve().parent
STEPS = ("prepare", "save", "load", "open")
SIDE = 32
_FOLDERS = 400
_PER_PATIENT = 3


def draw(number: int) -> bytes:
    """Return a PNG of 8 by 8 grey pixels that no other number has."""
    rows = b"".join(b"\0" + bytes(((number >> 8 * x) + 7 * y + 13 * x) & 255 for x in range(8)) for y in range(8))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 1)),
        (b"IEND", b""),
    )
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def make_set(folder: Path, images: int) -> None:
    """Make so many images of a third as many patients, and their table."""
    for number in range(min(_FOLDERS, images)):
        (folder / f"p{number:03d}").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "patient_id", "sex", "age", "view"))
        for number in range(images):
            patient = number // _PER_PATIENT
            path = f"p{patient % _FOLDERS:03d}/patient{patient:06d}_{number % _PER_PATIENT}.png"
            (folder / path).write_bytes(draw(number))
            label = "pneumonia" if patient * 7919 % 5 == 0 else "normal"
            table.writerow((path, label, f"patient{patient:06d}", "FM"[patient % 2], 20 + patient % 70, "AP"))


def take_steps(data: str, run: str, renamed: str) -> dict[str, float]:
    """Take the steps of a search over the data here, and return the seconds of each."""
    from ttl_deploy.data import load_manifest, open_cache, prepare, save_manifest
    from ttl_deploy.records.data import DecodeSettings, Reading

    manifest = None
    took = {}
    for step in STEPS:
        began = time.perf_counter()
        if step == "prepare":
            manifest = prepare(data, reading=Reading(classes={"pneumonia": renamed})) if renamed else prepare(data)
        elif step == "save":
            save_manifest(manifest, Path(run))
        elif step == "load":
            load_manifest(Path(run))
        else:
            open_cache(manifest, DecodeSettings(image_size=SIDE))
        took[step] = time.perf_counter() - began
    return took | {"data": sum(took.values())}


class BegunError(Exception):
    """A search is about to train."""


class Stop:
    """A reporter that ends a search where its first round begins."""

    def step(self, stage: str, done: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def plan(self, tasks: object) -> None:
        """End the search."""
        raise BegunError


def begin_search(data: str, run: str) -> dict[str, float]:
    """Begin a search, and return how long after the start of this process it would have trained."""
    from ttl_deploy.records.data import DecodeSettings
    from ttl_deploy.records.trials import SearchSettings
    from ttl_deploy.runs.folder import RunFolder
    from ttl_deploy.search.study import run_study

    settings = SearchSettings(
        backbone="mobilenet_v2",
        data=data,
        weights="none",
        cuts=("features.6",),
        policy="exhaustive",
        skip=("profile",),
        decode=DecodeSettings(image_size=SIDE),
    )
    try:
        run_study(settings, RunFolder(Path(run)), command="", reporter=Stop())
    except BegunError:
        return {"search": time.time() - float(os.environ["BEGAN_S"])}
    raise RuntimeError("the search ended without a training")


def be_child(arguments: list[str]) -> None:
    """Do one measurement and print it."""
    what, data, run, *renamed = arguments
    took = begin_search(data, run) if what == "search" else take_steps(data, run, *renamed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(took | {"cpu": time.process_time(), "peak MB": peak}))


def measure(name: str, *arguments: object, cache: Path, checkout: str = "") -> dict[str, object]:
    """Measure in a fresh process; seconds, but for the memory."""
    found = subprocess.run(
        [sys.executable, __file__, "--child", *map(str, arguments)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TTL_DEPLOY_CACHE": str(cache),
            "BEGAN_S": str(time.time()),
            "PYTHONPATH": os.pathsep.join((checkout or str(HERE.parent), str(HERE))),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row: Mapping[str, float] = json.loads(found.stdout)
    return {"run": name, **{key: round(value, 0 if "MB" in key else 2) for key, value in row.items()}}


def measure_all(images: int, checkout: str) -> list[dict[str, object]]:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data, runs, cache = place / "set", place / "runs", place / "cache"
        make_set(data, images)
        time.sleep(3)  # files younger than two seconds may change unseen, so nothing is remembered of them
        for version, where in ([("earlier version: ", checkout)] if checkout else []) + [("", "")]:
            for name in ("first", "again"):
                run = runs / f"{bool(where)}-{name}"
                rows.append(measure(version + name, "data", data, run, "", cache=cache / where[-6:], checkout=where))
                print(rows[-1], flush=True)
        rows.append(measure("other labels", "data", data, runs / "other", "sick", cache=cache))
        for name, source in (("search, first", data), ("search, again", data), ("search, small", "phantom:blob")):
            rows.append(measure(name, "search", source, runs / f"search-{len(rows)}", cache=cache))
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        be_child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--against", default="", help="A checkout of another version.")
    parser.add_argument("--write", action="store_true", help="Store the figures.")
    given = parser.parse_args()
    rows = measure_all(given.images, given.against)
    if given.write:
        against = " --against CHECKOUT" if given.against else ""
        store("data_scale", f"python benchmarks/data_scale.py --images {given.images}{against} --write", rows)


if __name__ == "__main__":
    main()
