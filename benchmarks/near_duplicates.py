"""How many changed copies `ttl-deploy inspect` recognises, and how often different patients' images alarm it.

Run:  python benchmarks/near_duplicates.py DATA... [--every 8] [--write]
      DATA is anything `ttl-deploy inspect` takes, with patients' ids.
Every so many-th image is changed in known ways and looked up against its original, by the rule that `inspect` uses:
hashes within the radius, then the match of thumbnails. False alarms are pairs of different patients, all compared.
`--write` puts the table into docs/data.md.
"""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from results import store

from ttl_deploy.data import near_duplicates
from ttl_deploy.data.manifest import prepare
from ttl_deploy.data.traits import Traits, describe, look_at
from ttl_deploy.files import publish_text
from ttl_deploy.records.data import Manifest
from ttl_deploy.runtime.machine import usable_cores

DOCUMENT = Path(__file__).parent.parent / "docs" / "data.md"
MARKS = ("<!-- near duplicates, written by benchmarks/near_duplicates.py -->\n", "<!-- end -->")
LEVELS = (0.9, near_duplicates.LEAST_MATCH, near_duplicates.STRICT_MATCH)
Row = dict[str, object]


def encode(image: Image.Image, quality: int = 95) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def trim(image: Image.Image, share: float) -> Image.Image:
    """Cut `share` of the width and height away, half of it on each side."""
    x, y = (round(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def scale(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def brighten(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, round(value * 1.15 + 12)))


def change(image: Image.Image) -> Mapping[str, bytes]:
    """Return the changed copies of an image, by the name of the change."""
    return {
        "JPEG quality 60": encode(image, 60),
        "scaled to 90 %": encode(scale(image, 0.9)),
        "trimmed by 2 %": encode(trim(image, 0.02)),
        "trimmed by 4 %": encode(trim(image, 0.04)),
        "brighter": encode(brighten(image)),
        "all at 2 %": encode(scale(trim(brighten(image), 0.02), 0.9), 60),
    }


def compare(original: Traits, copy: Traits) -> float:
    """Return the match of two looks, 0 where their hashes are too far apart."""
    if np.bitwise_count(original["hash"] ^ copy["hash"]).sum() > near_duplicates.RADIUS:
        return 0.0
    return float(near_duplicates.match(original["thumbnail"][None], copy["thumbnail"][None])[0])


def measure(manifest: Manifest, *, every: int) -> list[Row]:
    """Return a row per level of the match: recall by change, and false alarms among different patients."""
    distinct = list({sample.sha256: sample for sample in manifest.samples}.values())
    root = Path(manifest.root)
    looks, _ = look_at(root, [sample.path for sample in distinct], workers=usable_cores())
    found: dict[str, list[float]] = {}
    for position in sorted(looks)[::every]:
        with Image.open(root / distinct[position].path) as image:
            copies = change(image.convert("RGB"))
        for name, content in copies.items():
            found.setdefault(name, []).append(compare(looks[position], describe(content, name=name)))
    patients = np.unique([distinct[position].patient_id for position in sorted(looks)], return_inverse=True)[1]
    traits = np.stack([looks[position] for position in sorted(looks)])
    close = np.concatenate([np.empty((0, 2), np.intp), *near_duplicates.find_close(traits["hash"])])
    close = close[patients[close[:, 0]] != patients[close[:, 1]]]
    alarms = near_duplicates.match(traits["thumbnail"][close[:, 0]], traits["thumbnail"][close[:, 1]])
    sizes = np.bincount(patients)
    pairs = (int(sizes.sum()) ** 2 - int((sizes**2).sum())) // 2
    return [
        {
            "data": manifest.name,
            "match": level,
            "taken": "yes" if level == near_duplicates.choose_level(alarms, images=len(traits)) else "",
            "copies": len(next(iter(found.values()))),
            **{name: float(np.mean(np.array(matches) >= level)) for name, matches in found.items()},
            "pairs": pairs,
            "within the radius": len(close),
            "false alarms": int((alarms >= level).sum()),
        }
        for level in LEVELS
    ]


def render(rows: list[Row]) -> str:
    """Render the rows as a Markdown table."""
    cells = [[f"{v:.1%}" if isinstance(v, float) and k != "match" else f"{v}" for k, v in row.items()] for row in rows]
    lines = [" | ".join(line) for line in (list(rows[0]), ["---"] * len(rows[0]), *cells)]
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows = [row for data in given.data for row in measure(prepare(data), every=given.every)]
    print(render(rows))
    if given.write:
        names = " ".join(Path(data).name for data in given.data)
        store("near_duplicates", f"python benchmarks/near_duplicates.py {names} --every {given.every} --write", rows)
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        publish_text(DOCUMENT, f"{before}{MARKS[0]}{render(rows)}{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
