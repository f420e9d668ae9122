"""The forms in which one network can run, each timed in a process of its own: torch's own, and files in runtimes.

A form is measured with one thread and one image, in CPU time of the process, which other programs hardly move.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy import plugins
from ttl_deploy.export.onnx_writer import make_deployable
from ttl_deploy.models import truncation, weights
from ttl_deploy.records.models import InputConvention, ModelSpec

TORCH_FORMS = ("eager fp32", "channels last fp32", "channels last bf16", "compiled fp32", "compiled bf16")
WARMUP = 5
BATCH = 16
Pixels = NDArray[np.uint8]
Answers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A torch model: its structure, its weights (None: random), how it wants images, its temperature."""

    spec: ModelSpec
    weights: Path | None
    convention: InputConvention
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One row of the table: `model` is the network, `name` what it runs as, `side` its images' in pixels.

    `torch` is set for torch's own forms; `file`, `target` and `precision` for a file in a runtime.
    """

    model: str
    name: str
    side: int
    torch: Trained | None = None
    file: Path | None = None
    target: str = ""
    precision: str | None = None
    megabytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The median CPU seconds of a call, what really ran, and the answers `(n, classes)` to the images given."""

    cpu_s: float
    ran: str
    runtime: str
    answers: Answers | None


def measure(form: Form, images: Pixels | None, runs: int) -> Measured:
    """Time a form, and have it answer images; for a child process."""
    call, ran, runtime = _open_torch(form) if form.torch else _open_file(form)
    answers = None
    if images is not None:
        parts = [call(np.ascontiguousarray(images[start : start + 1])) for start in range(len(images))]
        answers = np.concatenate(parts)
    image = np.random.default_rng(0).integers(0, 256, (1, form.side, form.side, 3), dtype=np.uint8)
    for _ in range(WARMUP):
        call(image)
    seconds = []
    for _ in range(runs):
        begun = time.process_time_ns()
        call(image)
        seconds.append((time.process_time_ns() - begun) / 1e9)
    return Measured(cpu_s=statistics.median(seconds), ran=ran, runtime=runtime, answers=answers)


def _open_file(form: Form) -> tuple[Callable[[Pixels], Answers], str, str]:
    assert form.file is not None
    session = plugins.load("targets", form.target)().open(form.file, threads=1, precision=form.precision)
    return session.run, session.precision, session.runtime


def _open_torch(form: Form) -> tuple[Callable[[Pixels], Answers], str, str]:
    assert form.torch is not None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = truncation.build(form.torch.spec)
    if form.torch.weights is not None:
        weights.load_weights(module, form.torch.weights)
    convention = form.torch.convention
    deployable = make_deployable(module, mean=convention.mean, std=convention.std, temperature=form.torch.temperature)
    half = form.name.endswith("bf16")
    if "eager" not in form.name:
        deployable.network.to(memory_format=torch.channels_last)
    if half:
        deployable.network = _Half(deployable.network)
    run: Callable[[Tensor], Tensor] = deployable
    if "compiled" in form.name:
        run = _compile(deployable)

    def call(images: Pixels) -> Answers:
        with torch.no_grad():  # freezing knows no inference mode
            return run(torch.from_numpy(images)).float().numpy()

    return call, "bf16" if half else "fp32", f"torch {torch.__version__}"


class _Half(nn.Module):
    """A network in bf16 between fp32 pixels and fp32 logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).bfloat16()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.bfloat16()).float()


def _compile(module: nn.Module) -> Callable[[Tensor], Tensor]:
    from torch._inductor import config

    config.freezing = True
    compiled: Callable[[Tensor], Tensor] = torch.compile(module)
    return compiled
