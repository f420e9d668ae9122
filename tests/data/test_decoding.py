"""A decoder may crash or hang on one file: the others go on. What a killed run has finished is not done again."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ttl_deploy.data import open_cache, prepare
from ttl_deploy.data.cache import decode_images
from ttl_deploy.pixels import decode
from ttl_deploy.records.data import DecodeSettings

SMALL = DecodeSettings(image_size=12)

# Runs in every child of `spawn`: makes some files end, stop or slow down whatever decodes them.
TROUBLE = """
import os, signal, time
from ttl_deploy import pixels
from ttl_deploy.data import decoding
whole = pixels.decode_bytes

def decode_bytes(content, settings, *, name):
    if content.startswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if content.startswith(b"hang"):
        time.sleep(1000)
    if content.startswith(b"once") and not os.path.exists(content[5:].decode()):
        open(content[5:].decode(), "w").close()
        os._exit(3)
    time.sleep(float(os.environ.get("SLOWNESS_S", "0")))
    return whole(content, settings, name=name)

pixels.decode_bytes = decode_bytes
decoding.PATIENCE_S = 4.0
"""
RUN = """
import signal, sys
# Tests that run in the background of a shell are begun with interrupts ignored, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
{trouble}
from ttl_deploy.data import open_cache, prepare
from ttl_deploy.data.cache import decode_images
from ttl_deploy.records.data import DecodeSettings

if __name__ == "__main__":
    failures = decode_images(prepare(sys.argv[1]), DecodeSettings(image_size=12), workers=2)
    for reason in failures.values():
        print(reason)
"""


@pytest.fixture
def folder(tmp_path, draw):
    """Return class folders of 140 images."""
    for i in range(140):
        draw(tmp_path / "set" / ("cat" if i % 2 else "dog") / f"{i:03d}.png", i)
    return tmp_path / "set"


@pytest.fixture
def start(tmp_path, folder):
    """Return a function that decodes the folder in a process of its own, with trouble."""
    (tmp_path / "troubled.py").write_text(RUN.format(trouble=TROUBLE))

    def begin(**environment):
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "troubled.py"), str(folder)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    return begin


def test_a_file_that_crashes_or_stops_its_decoder_is_given_up_and_the_others_go_on(folder, start, tmp_path):
    for name, content in (("a", b"crash"), ("b", b"hang"), ("c", b"once " + str(tmp_path / "mark").encode())):
        (folder / "cat" / f"{name}.png").write_bytes(content)
    process = start()
    reasons = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert reasons[0] == "ends the process that decodes it (signal SIGSEGV)"
    assert reasons[1] == "gives no answer: its decoder was stopped after 4 s"
    assert reasons[2].startswith("is not an image: it begins with b'once")
    assert len(reasons) == 3
    # A crash is not remembered: here the files only are no images.
    assert [one.partition(":")[0] for one in decode_images(prepare(str(folder)), SMALL).values()] == [
        "is not an image"
    ] * 3


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_run_has_finished_is_not_decoded_again(folder, start, cache_dir, by):
    process = start(SLOWNESS_S="0.03")
    journal = None
    while journal is None and process.poll() is None:
        journal = next((path for path in cache_dir.rglob("journal") if path.stat().st_size), None)
        time.sleep(0.02)
    process.send_signal(by)
    process.communicate(timeout=60)
    assert process.returncode != 0
    told, manifest = [], prepare(str(folder))
    cache = open_cache(manifest, SMALL, note=told.append)
    assert "more are decoded already" in told[0]
    expected = [decode(folder / sample.path, SMALL) for sample in manifest.samples]
    np.testing.assert_array_equal(cache.pixels(range(140)), np.stack(expected))
