"""Small labelled images on disk, and a cache folder of the test's own."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(folder))
    return folder


@pytest.fixture
def draw():
    """Return a function that writes a small PNG; the same seed gives the same bytes."""

    def write(path, seed, side=16):
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(values).save(path)
        return path

    return write


@pytest.fixture
def make_table(tmp_path, draw):
    """Return a function that writes `labels.csv` and an image per row; a row may name its seed as `seed`."""

    def write(rows, name="labels.csv", folder=tmp_path / "set"):
        columns = [column for column in rows[0] if column != "seed"]
        lines = [",".join(columns)]
        for number, row in enumerate(rows):
            draw(folder / row["path"], row.get("seed", number))
            lines.append(",".join(str(row[column]) for column in columns))
        (folder / name).write_text("\n".join(lines) + "\n")
        return folder

    return write
