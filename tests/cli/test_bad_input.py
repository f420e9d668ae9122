"""Bad input: one clear line and the exit code of the design, before any training."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., subprocess.CompletedProcess[str]]
WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights"


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two class folders of twelve different images."""
    for number in range(24):
        draw(tmp_path / "images" / ("ill" if number % 2 else "well") / f"{number:02d}.png", number)
    return tmp_path / "images"


@pytest.fixture
def search(ttl_deploy: Run) -> Run:
    """Search with a small network; the arguments say what with."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = {"--backbone": "resnet18", "--weights": "none", "--image-size": "32", "--epochs": "1", "-o": "run"}
        given |= dict(zip(map(str, arguments[::2]), arguments[1::2], strict=True))
        return ttl_deploy("search", *(part for pair in given.items() for part in pair))

    return run


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with this code and said why in one line."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line, line


@pytest.mark.slow
def test_an_empty_folder(search: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(search("--data", tmp_path / "empty"), 3, "empty")


@pytest.mark.slow
def test_data_that_are_not_there(search: Run, tmp_path: Path) -> None:
    assert_refused(search("--data", tmp_path / "nowhere"), 2, "nowhere", "does not exist")


@pytest.mark.slow
def test_one_class_only(search: Run, images: Path) -> None:
    shutil.rmtree(images / "ill")
    assert_refused(search("--data", images), 3, "'well'")


def test_a_text_file_named_jpg(search: Run, images: Path) -> None:
    (images / "ill" / "notes.jpg").write_text("not an image")
    assert_refused(search("--data", images, "--skip", "profile"), 3, "notes.jpg")


@pytest.mark.slow
def test_a_row_whose_file_is_missing(search: Run, images: Path) -> None:
    (images / "labels.csv").write_text("path,label\nwell/00.png,well\nill/01.png,ill\nill/gone.png,ill\n")
    assert_refused(search("--data", images), 3, "gone.png")


@pytest.mark.slow
def test_a_patient_in_two_splits(search: Run, images: Path) -> None:
    rows = [f"well/{n:02d}.png,well,p{n},train" for n in range(0, 24, 2)] + [
        f"ill/{n:02d}.png,ill,p{n},train" for n in range(1, 24, 2)
    ]
    rows[0] = "well/00.png,well,anna,train"
    rows[1] = "well/02.png,well,anna,test"
    (images / "labels.csv").write_text("\n".join(["path,label,patient_id,split", *rows]))
    assert_refused(search("--data", images), 3, "anna", "train", "test")


@pytest.mark.slow
def test_an_identical_image_in_two_splits(search: Run, images: Path) -> None:
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        split = "test" if number % 4 == 0 else "train"
        target = images / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    for emptied in ("ill", "well"):
        shutil.rmtree(images / emptied)
    original = next((images / "train" / "ill").iterdir())
    shutil.copy(original, images / "test" / "ill" / "copy.png")
    assert_refused(search("--data", images), 3, "copy.png", original.name)


@pytest.mark.slow
def test_a_validation_split_with_one_class(search: Run, images: Path) -> None:
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        split = "val" if path.parent.name == "well" and number % 2 else "train"
        target = images / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    for emptied in ("ill", "well"):
        shutil.rmtree(images / emptied)
    assert_refused(search("--data", images), 3, "'val'", "'well'")


def test_an_unknown_backbone(search: Run, images: Path) -> None:
    assert_refused(search("--data", images, "--backbone", "resnet17"), 2, "resnet17", "did you mean resnet18")


@pytest.mark.slow
def test_an_unknown_cut(search: Run, images: Path) -> None:
    assert_refused(search("--data", images, "--cuts", "layer9"), 2, "layer9", "layer4.1")


@pytest.mark.parametrize(
    "flag",
    [
        "--strategy",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("--policy", "--profile-target", "--executor")),
    ],
)
def test_an_unknown_plug_in(search: Run, images: Path, flag: str) -> None:
    assert_refused(search("--data", images, flag, "magic"), 2, "magic")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--gpus", "0,a"), "0,1"),
        (("--gpus", "0,0"), "different"),
        pytest.param(("--gpus", "0", "--device", "cpu"), "exclude each other", marks=pytest.mark.slow),
        pytest.param(("--address", "head:6379"), "--executor ray", marks=pytest.mark.slow),
    ],
)
def test_places_to_train_that_do_not_go_together(search: Run, images: Path, given: tuple[str, ...], word: str) -> None:
    assert_refused(search("--data", images, *given), 2, word)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param("full,magic", ("magic", "full"), marks=pytest.mark.slow),
        ("full,l2-sp?alfa=1", ("alfa", "alpha")),
        pytest.param("full,l2-sp,full", ("'full'", "twice"), marks=pytest.mark.slow),
        pytest.param("distill?teacher=magic", ("magic",), marks=pytest.mark.slow),
        pytest.param("full,lwft?freeze=layer9", ("layer9", "layer4.1"), marks=pytest.mark.slow),
        pytest.param("transfusion?upto=layer9", ("layer9", "layer4.1"), marks=pytest.mark.slow),
    ],
)
def test_a_list_of_strategies_with_a_bad_one(search: Run, images: Path, given: str, words: tuple[str, ...]) -> None:
    assert_refused(search("--data", images, "--strategy", given, "-o", images.parent / "fresh"), 2, *words)
    assert not (images.parent / "fresh").exists()


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason="the shared weights are not here")
def test_weights_of_another_network(search: Run, images: Path) -> None:
    weights = next(WEIGHTS.glob("squeezenet1_1*.pth"))
    assert_refused(search("--data", images, "--weights", weights), 2, "conv1.weight", "squeezenet1_1")


@pytest.mark.slow
def test_weights_that_are_no_weights(search: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("hello")
    assert_refused(search("--data", images, "--weights", tmp_path / "weights.pth"), 2, "weights.pth")


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_written(search: Run, images: Path) -> None:
    assert_refused(search("--data", images, "-o", "/proc/ttl-deploy-run"), 74, "/proc/ttl-deploy-run", "writable")


@pytest.mark.slow
def test_an_output_folder_below_a_file(search: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(search("--data", images, "-o", tmp_path / "file" / "run"), 74, "file")


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--epochs", "0", "epochs"),
        ("--lr", "-1", "lr"),
        ("--image-size", "4", "image_size"),
        ("--fit", "squash", "fit"),
        ("--seeds", "0,0", "seeds"),
        ("--max-latency", "5", "5ms"),
        pytest.param("--device", "cuda:77", "cuda:77", marks=pytest.mark.slow),
        ("--pool", "median", "pool"),
        pytest.param("--val-fraction", "0.9", "val_fraction", marks=pytest.mark.slow),
    ],
)
def test_a_setting_out_of_range(search: Run, images: Path, flag: str, value: str, word: str) -> None:
    assert_refused(search("--data", images, flag, value), 2, word)


def test_a_missing_required_option(ttl_deploy: Run) -> None:
    assert_refused(ttl_deploy("search", "--backbone", "resnet18"), 2, "--data")


def test_no_run_here(ttl_deploy: Run) -> None:
    for command in ("front", "export", "report", "bench", "verify"):
        assert_refused(ttl_deploy(command), 2, "ttl-deploy")


def test_an_unknown_option_in_the_config_file(ttl_deploy: Run, tmp_path: Path) -> None:
    (tmp_path / "search.toml").write_text('backbone = "resnet18"\nepoks = 3\n')
    assert_refused(ttl_deploy("search", "--config", "search.toml"), 2, "epoks", "epochs")


@pytest.mark.slow
def test_limits_that_no_cut_meets_are_refused_before_any_training(ttl_deploy: Run, tmp_path: Path) -> None:
    data = "phantom:texture?patients=30&size=32&seed=1"
    common = ("--weights", "none", "--image-size", "32", "--profile-seconds", "0.05", "-o", "run", "--cuts", "stage2.3")
    done = ttl_deploy("search", "--backbone", "shufflenet_v2_x0_5", "--data", data, *common, "--max-params", "100")
    assert_refused(done, 5, "stage2.3", "100")
    assert not (tmp_path / "run" / "trials").exists()
