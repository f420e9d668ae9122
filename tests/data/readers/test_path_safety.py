"""Whatever a table calls an image, nothing outside of the data's folder is opened or listed."""

import csv
import itertools
import os
import socket
import sys

import pytest

from ttl_deploy.data.readers.image_paths import ImageFinder
from ttl_deploy.data.readers.table import TableReader
from ttl_deploy.errors import DataError, LabelError
from ttl_deploy.records.data import Reading

opened: list[str] | None = None
LOOKS = frozenset(("open", "os.open", "os.listdir", "os.scandir"))


def note(event, arguments):
    """Note every file that is opened and every folder that is listed, by whatever part of Python."""
    if opened is not None and event in LOOKS and isinstance(arguments[0], str | bytes | os.PathLike):
        opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(note)


@pytest.fixture
def recorded():
    """Return the list of what is opened or listed from now on."""
    global opened
    opened = []
    yield opened
    opened = None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder `set` with traps in it and a canary beside it."""
    base = tmp_path_factory.mktemp("base")
    root, secret = base / "set", base / "secret"
    for folder in (root / "sub" / "deep", secret):
        folder.mkdir(parents=True)
    (root / "a.png").write_bytes(b"image")
    (secret / "canary.png").write_bytes(b"canary")
    links = {
        "file.png": secret / "canary.png",
        "relative.png": "../secret/canary.png",
        "folder": secret,
        "sub/up": "../..",
        "sub/deep/root": "/",
        "chain.png": "file.png",
        "loop.png": "loop.png",
        "zero.png": "/dev/zero",
        "null.png": "/dev/null",
        "environ.png": "/proc/self/environ",
        "dangling.png": "nowhere.png",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as trap:
        here = os.open(root, os.O_RDONLY)
        trap.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)
    return base


def payloads(base):
    """Return 300 ways to ask for something that is no image of the set."""
    canary = str(base / "secret" / "canary.png")
    found = [
        *("file.png", "relative.png", "folder/canary.png", "chain.png", "loop.png", "zero.png", "null.png"),
        *("environ.png", "dangling.png", "pipe.png", "socket.png", "sub", "sub/", "sub/deep", "folder", "folder/"),
        *("sub/up/secret/canary.png", "sub/up/set/../secret/canary.png", f"sub/deep/root{canary}", "sub/deep/root"),
        *("a.png/..", "a.png/../a.png/x", "a.png/x.png", ".", "..", "/", "//", "\\", "./", "../"),
        *("~", "~/canary.png", "~root/canary.png", "~/../secret/canary.png", "sub/..", "sub/../..", "sub/../../"),
        *(canary, f"/{canary}", f"//{canary}", f"///{canary}", canary.replace("/", "\\"), f"/.{canary}"),
        *(f"{base}/set/../secret/canary.png", f"{base}/set/sub/../../secret/canary.png", f"file://{canary}"),
        *("/etc/passwd", "/etc/shadow", "/dev/zero", "/dev/stdin", "/dev/fd/0", "/proc/self/environ", "/proc/self/mem"),
        *("/proc/self/root/etc/passwd", "/proc/self/cwd", "/proc/1/fd/0", "/sys/kernel", "/root/.ssh/id_rsa"),
        *("C:\\secret\\canary.png", "C:/secret/canary.png", "c:canary.png", "C:", "C:\\", "Z:\\..\\canary.png"),
        *("\\\\server\\share\\canary.png", "//server/share/canary.png", "\\\\?\\C:\\canary.png", "\\\\.\\pipe\\x"),
        *("file:///etc/passwd", "http://example.org/canary.png", "data:image/png;base64,AAAA", "CON", "NUL", "aux.png"),
        *("canary.png", "secret/canary.png", "set/../../secret/canary.png", "$HOME/canary.png", "${HOME}/canary.png"),
        *("%2e%2e/secret/canary.png", "%2e%2e%2fsecret%2fcanary.png", "..%2fsecret%2fcanary.png", "..%5ccanary.png"),
        *("．．/secret/canary.png", "..／secret／canary.png", "․․/secret/canary.png", "\u202e../secret/canary.png"),
        *("....//secret/canary.png", "..../secret/canary.png", "..;/secret/canary.png", ".. /secret/canary.png"),
        *("../secret/canary.png\n", "a.png\n../secret/canary.png", "*.png", "?.png", "[a].png", "$(cat a.png)"),
        *("`id`", "|id", ";id", "a.png;id", "a.png&&id", "x" * 300, "x" * 5000, "x/" * 3000 + "a.png", "../" * 3000),
        *(f"../set/a.png{end}" for end in ("", "/", "/..", "/../../secret/canary.png", "\\..\\..")),
    ]  # fmt: skip # rows of payloads
    leads = ("", "./", "sub/", "sub/deep/", "sub/./", "folder/../", "nowhere/", "a.png/", "/", "sub/up/")
    climbs = ("..", "../..", "../../..", "../../../..", "../" * 11 + "..")
    ends = ("secret/canary.png", "./secret/canary.png", "etc/passwd", "set/../secret/canary.png")
    for lead, climb, end in itertools.product(leads, climbs, ends):
        path = f"{lead}{climb}/{end}"
        found += [path, path.replace("/", "\\")]
    return list(dict.fromkeys(found))[:300]


def ask(place, payload, **options):
    """Read a table of one good row and the payload."""
    root = place / "set"
    with open(root / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), ("a.png", "x"), (payload, "y")])
    return TableReader().read(str(root), Reading(**options))


@pytest.mark.parametrize("remap", [False, True])
def test_three_hundred_payloads_are_refused_and_nothing_outside_is_opened(place, recorded, remap):
    found = payloads(place)
    assert len(found) == 300
    options = {"image_root": str(place / "set")} if remap else {}
    for payload in found:
        with pytest.raises(DataError) as caught:
            ask(place, payload, **options)
        assert "row 3" in str(caught.value), payload
        assert "column 'path'" in str(caught.value), payload
    root = str((place / "set").resolve())
    assert recorded
    assert {path for path in recorded if not os.path.realpath(path).startswith(root)} == set()


@pytest.mark.parametrize("remap", [False, True])
def test_no_share_of_bad_images_lets_an_escape_pass(place, recorded, remap):
    options = {"image_root": str(place / "set")} if remap else {}
    escapes = [payload for payload in payloads(place) if ".." in payload.replace("\\", "/").split("/")]
    passed = 0
    for payload in escapes:
        try:
            raw = ask(place, payload, max_bad=1.0, **options)
        except LabelError:
            continue
        passed += 1
        assert [sample.path for sample in raw.samples] == ["a.png"]
    assert passed < len(escapes) / 4
    root = str((place / "set").resolve())
    assert {path for path in recorded if not os.path.realpath(path).startswith(root)} == set()


@pytest.mark.parametrize("name", ["a\0.png", "\0", "../secret/canary.png\0.png", "sub\0/../a.png"])
def test_nul_characters_are_refused(place, name):
    with pytest.raises(LabelError, match=r"row 0 holds a NUL character"):
        ImageFinder(place / "set").find([name], where=lambda row: f"row {row}")


@pytest.mark.parametrize("count", [1, 3, 4, 100])
def test_a_listed_folder_is_as_safe_as_single_looks(place, count):
    for name in ("file.png", "folder/canary.png", "sub/up/secret/canary.png"):
        with pytest.raises(LabelError, match="leads out of"):
            ImageFinder(place / "set").find([name] * count, where=lambda row: f"row {row}")
    found = ImageFinder(place / "set").find(["pipe.png", "sub", "zero"] * count, where=lambda row: f"row {row}")
    assert found.paths == [None] * 3 * count


def test_links_that_stay_within_are_followed(tmp_path, draw):
    draw(tmp_path / "real" / "a.png", 1)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "b.png").symlink_to("real/a.png")
    (tmp_path / "real" / "here").symlink_to("..")
    names = ["link/a.png", "b.png", "real/here/real/a.png", "link/here/b.png"]
    for repeat in (1, 4):
        found = ImageFinder(tmp_path).find(names * repeat, where=str)
        assert found.paths == ["real/a.png"] * 4 * repeat
