"""What of the documents' commands is typed otherwise in a test, or not typed at all, and why."""

from dataclasses import dataclass

from tests.docs.typed_commands import Typed


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """Words of a command that a test types otherwise."""

    page: str
    typed: str
    instead: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """A command, by what it contains, that no test types; `covered_by` is the test that stands for it."""

    page: str
    contains: str
    why: str
    covered_by: str


STAND_INS = (
    StandIn(
        page="docs/bench.md",
        typed="[ARTIFACT …] [--target onnxruntime-cpu,openvino-cpu:bf16] [--mode latency|throughput] [--batch 1,8,32] "
        "[--threads 1] [--end-to-end] [--images FOLDER] [--compare]",
        instead="ARTIFACT --target onnxruntime-cpu,openvino-cpu:bf16 --mode throughput --batch 1,8,32 --threads 1 "
        "--end-to-end --images new_images --compare",
        why="brackets mark options, and ARTIFACT and FOLDER are placeholders",
    ),
    StandIn(
        page="docs/data.md",
        typed="[--label-col NAME] [--val-fraction 0.15] [--test-fraction 0.15] [--split-seed 0] [--image-size 224] "
        "[--json] [-o inspect.json]",
        instead="--label-col label --val-fraction 0.15 --test-fraction 0.15 --split-seed 0 --image-size 224 --json "
        "-o inspect.json",
        why="brackets mark options, and NAME is a placeholder",
    ),
    StandIn(page="docs/cuts.md", typed="NAME", instead="resnet18", why="a placeholder"),
    StandIn(page="docs/papers.md", typed="NAME", instead="resnet18", why="a placeholder"),
    StandIn(page="docs/strategies.md", typed="NAME", instead="gabor", why="a placeholder"),
    StandIn(page="docs/precision.md", typed="FORMAT", instead="ort", why="a placeholder"),
    StandIn(page="docs/precision.md", typed="PRECISION", instead="fp32", why="a placeholder"),
    StandIn(
        page="docs/cuts.md",
        typed="--backbone densenet121 --latency --plot docs/",
        instead="--backbone densenet121 --cuts stages --latency --plot ",
        why="63 cuts are exported and timed, which takes minutes; the ends of stages are enough",
    ),
    StandIn(
        page="docs/precision.md",
        typed="runs/NAME/exports/full-openvino-int8",
        instead="runs/NAME/exports/*-openvino-int8",
        why="which cut a small search chooses is chance",
    ),
    StandIn(page="docs/settings.md", typed="--epochs 20", instead="--epochs 2", why="20 epochs take minutes"),
    StandIn(page="docs/strategies.md", typed="--seeds 0,1,2", instead="--seeds 0", why="36 trainings take minutes"),
    StandIn(page="docs/width.md", typed="160,224", instead="48,64", why="DenseNet-121 at 224 px takes minutes"),
    StandIn(page="docs/width.md", typed="@160px@", instead="@48px@", why="as above"),
    StandIn(
        page="docs/width.md",
        typed="--cut features.denseblock2@",
        instead="--cut full@",
        why="which cut a small search chooses, and so varies, is chance; the full network is varied always",
    ),
)

NOT_RUN = (
    NotRun(
        page="docs/cluster.md",
        contains="--gpus 0,1",
        why="needs two GPUs",
        covered_by="tests/search/executors/test_local.py",
    ),
    NotRun(
        page="docs/cluster.md",
        contains="--executor ray",
        why="needs a cluster",
        covered_by="tests/search/executors/test_ray.py",
    ),
    NotRun(
        page="docs/cluster.md",
        contains="ray ",
        why="starts servers on this machine; its options are checked",
        covered_by="tests/search/executors/test_ray.py",
    ),
    NotRun(
        page="docs/cluster.md",
        contains="export TTL_DEPLOY_CACHE",
        why="a word of the shell's; the tests set the variable",
        covered_by="tests/cli/conftest.py",
    ),
    NotRun(
        page="docs/extending.md",
        contains="wards.imagelist",
        why="needs the plug-in, which another test installs and uses by these names",
        covered_by="tests/test_plugins_installed.py",
    ),
    NotRun(
        page="docs/docker.md",
        contains="docker ",
        why="needs Docker; files, services and the program's part are checked",
        covered_by="tests/docker/test_images.py",
    ),
    NotRun(
        page="docs/docker.md",
        contains="/opt/env",
        why="typed in NVIDIA's container",
        covered_by="tests/docker/test_images.py",
    ),
    NotRun(
        page="docs/bench.md",
        contains="benchmark_app ",
        why="OpenVINO's command, named for comparison",
        covered_by="tests/runtime/test_comparison.py",
    ),
    NotRun(
        page="docs/bench.md",
        contains="cpupower ",
        why="changes the machine, and needs root",
        covered_by="tests/runtime/test_cores.py",
    ),
    NotRun(
        page="docs/bench.md",
        contains="nvpmodel ",
        why="a Jetson's",
        covered_by="tests/runtime/test_jetson.py",
    ),
    NotRun(
        page="docs/doctor.md",
        contains="nvpmodel ",
        why="a Jetson's",
        covered_by="tests/runtime/test_jetson.py",
    ),
    NotRun(
        page="docs/bench.md",
        contains="chrt --fifo 1",
        why="needs root; what stands behind it is checked",
        covered_by="tests/runtime/test_bench.py",
    ),
    NotRun(
        page="docs/runtimes.md",
        contains="/usr/bin/time -v",
        why="a program that few machines have; the memory is measured by a test",
        covered_by="tests/runtime/test_predict.py",
    ),
    NotRun(
        page="docs/tensorrt.md",
        contains="sh build_on_target.sh",
        why="typed on a board; a test runs it with stand-ins for the board's programs",
        covered_by="tests/runtime/kit/test_kit.py",
    ),
    NotRun(
        page="docs/tensorrt.md",
        contains="trtexec --load",
        why="NVIDIA's; what it prints is stored",
        covered_by="tests/runtime/tensorrt/test_trtexec.py",
    ),
    NotRun(
        page="docs/compression-mobilenet_v2.md",
        contains="compression.py run, of:",
        why="a sentence about a run that the benchmark wrote",
        covered_by="tests/docs/test_other_commands.py",
    ),
)
CHECKED = ("make", "pip", "python", "pytest")
"""Programs whose commands `test_other_commands.py` checks without letting them do all that they do."""


def why_not_run(typed: Typed) -> NotRun | None:
    """Return the entry of the table that a command falls under."""
    for entry in NOT_RUN:
        if entry.page == typed.page and entry.contains in typed.text:
            return entry
    return None


def stand_ins_of(typed: Typed) -> tuple[StandIn, ...]:
    """Return the entries of the table that change a command."""
    return tuple(entry for entry in STAND_INS if entry.page == typed.page and entry.typed in typed.text)


def as_typed_here(typed: Typed) -> str:
    """Return what a test types for a command."""
    text = typed.text
    for entry in stand_ins_of(typed):
        text = text.replace(entry.typed, entry.instead)
    return text
