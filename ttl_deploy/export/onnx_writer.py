"""A torch classifier as one ONNX file that takes raw pixels and gives probabilities."""

import contextlib
import copy
import io
import logging
import os
import re
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

import ttl_deploy
from ttl_deploy.errors import GateError
from ttl_deploy.export.graph import INPUT, JETPACK5, MAX_BATCH, OPSET, OUTPUT
from ttl_deploy.files import publish_bytes
from ttl_deploy.models.input_conventions import fit_channels
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._dynamo")


class Deployable(nn.Module):
    """A classifier with its preprocessing in front and softmax behind: uint8 NHWC to probabilities.

    With `multilabel` it is a sigmoid of each class.

    Normalisation, `(pixel/255 − mean) / std`, is one multiplication and one addition per channel. It
    is not folded into the first convolution, whose zero padding stands for the *normalised* zero.
    Tried in ONNX Runtime: transposing bytes instead of floats is up to a tenth slower, transposing
    after the arithmetic ten times. A single mean and std are for a grey network: the three channels
    are averaged first. Logits are divided by the temperature before the softmax (Guo et al. 2017,
    section 4.2): one multiplication, and none where it is 1.
    """

    scale: Tensor
    shift: Tensor
    sharpness: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        temperature: float = 1.0,
        multilabel: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.is_grey = len(mean) == 1
        self.is_scaled = temperature != 1
        self.is_multilabel = multilabel
        self.register_buffer("sharpness", torch.tensor(1 / temperature, dtype=torch.float32))
        means, stds = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * stds)).float())
        self.register_buffer("shift", (-means / stds).float())

    def forward(self, image: Tensor) -> Tensor:
        """Turn uint8 images `(N, H, W, 3)` into float32 probabilities `(N, classes)`."""
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)  # (N, 3, H, W)
        if self.is_grey:
            pixels = pixels.mean(dim=1, keepdim=True)  # (N, 1, H, W)
        logits = self.network(pixels * self.scale + self.shift).to(torch.float32)
        if self.is_scaled:
            logits = logits * self.sharpness
        return torch.sigmoid(logits) if self.is_multilabel else torch.softmax(logits, dim=1)


def make_deployable(
    model: nn.Module,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    temperature: float = 1.0,
    multilabel: bool = False,
) -> Deployable:
    """Wrap a copy of `model`, on the CPU, in float32 and in evaluation mode; the model itself stays as it is.

    `mean` and `std` have three entries (red, green, blue) or one (grey), for pixel values in 0..1.
    """
    network = copy.deepcopy(model).to("cpu", torch.float32)
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # training keeps weights channels-last
    return (
        Deployable(network, mean=mean, std=std, temperature=temperature, multilabel=multilabel)
        .eval()
        .requires_grad_(False)
    )


def write_onnx(deployable: Deployable, path: Path, *, image_size: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Export to one file of opset 18 with a dynamic batch, check it in full, and publish it; returns what was written.

    `metadata` becomes the file's `metadata_props`; nothing else of this machine is in it. Raises
    `GateError` where the exporter cannot export the network, or delivers something else than asked for.
    """
    return _finish(_export(deployable, image_size), path, metadata, opset=OPSET)


def write_onnx_before(
    deployable: Deployable, path: Path, *, image_size: int, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Export as `write_onnx` does, but to opset 17 and IR version 8, for the parsers of JetPack 5.

    By torch's older exporter: the newer one writes nothing below opset 18.
    """
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-") as folder:
        raw = Path(folder) / "raw.onnx"
        _export_as_before(deployable, image_size, raw, opset=JETPACK5.opset)
        model = onnx.load(raw)
    model.ir_version = JETPACK5.ir_version
    return _finish(model, path, metadata, opset=JETPACK5.opset)


def _finish(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str], *, opset: int) -> onnx.ModelProto:
    _strip(model)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    _check(model, opset)
    publish_bytes(path, model.SerializeToString())
    return model


def export_for_timing(
    model: nn.Module, image_size: int, path: Path, *, convention: InputConvention | None = None
) -> None:
    """Write an ONNX file that runs as fast as the shipped one, made five to twenty times sooner.

    Goes through torch's older exporter: same operators at the same opset, and the same latency within the
    noise of measuring it (`benchmarks/timing_export.py`). Never shipped: names and node order differ.
    What the older exporter cannot do (adaptive pooling of AlexNet and VGG at sizes other than 224) goes
    through the newer one. Without a convention, ImageNet's is taken, with as many entries as the model's
    `channels` (3 where it does not say): the numbers cost no time. Raises `GateError` where the network
    cannot be exported at all.
    """
    used = convention or fit_channels(IMAGENET_INPUT, getattr(model, "channels", 3))
    deployable = make_deployable(model, mean=used.mean, std=used.std)
    try:
        _export_as_before(deployable, image_size, path)
    except GateError:
        write_onnx(deployable, path, image_size=image_size, metadata={})


def _export_as_before(deployable: Deployable, image_size: int, path: Path, *, opset: int = OPSET) -> None:
    with _quiet(), _export_errors():
        torch.onnx.export(
            deployable,
            (_example(image_size),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )


def _export(deployable: Deployable, image_size: int) -> onnx.ModelProto:
    with _quiet(), _export_errors():
        program = torch.onnx.export(
            deployable,
            (_example(image_size),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},),
            external_data=False,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise GateError("torch's ONNX exporter returned nothing: export the model again")
    model: onnx.ModelProto = program.model_proto
    return model


def _example(image_size: int) -> Tensor:
    """Two images: a batch of one would be taken for a constant."""
    return torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter noted of sources and modules: stack traces, scopes, doc strings."""
    model.producer_name, model.producer_version = "ttl-deploy", ttl_deploy.__version__
    model.doc_string = ""
    model.graph.name = "classifier"
    del model.metadata_props[:]
    _strip_messages(model.graph)


def _strip_messages(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]  # intermediate shapes, which every runtime infers itself
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _check(model: onnx.ModelProto, opset: int) -> None:
    """Refuse anything else than a valid single file at the opset asked for."""
    opsets = [(entry.domain, entry.version) for entry in model.opset_import if entry.domain or entry.version != opset]
    if opsets or len(model.opset_import) != 1 or model.functions:
        raise GateError(f"the exporter delivered other operator sets than ONNX {opset}: {opsets}; nothing was written")
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise GateError("the exporter put weights into another file; nothing was written")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the ONNX checker refuses the exported model: {error}; nothing was written") from error


@contextlib.contextmanager
def _export_errors() -> Iterator[None]:
    """Translate the exporters' failures, which share no narrower base than RuntimeError."""
    try:
        with _interruptions_kept():
            yield
    except RuntimeError as error:
        told = dict.fromkeys(_first_line(cause) for cause in (error, [*_causes_of(error)][-1]))
        raise GateError(f"torch cannot export this model to ONNX: {': '.join(told)}; nothing was written") from error


@contextlib.contextmanager
def _interruptions_kept() -> Iterator[None]:
    """Raise again what a signal's handler raised: the exporter catches everything, and tries another way."""
    raised: list[BaseException] = []
    handlers: dict[int, Any] = {}

    def call(number: int, frame: FrameType | None) -> None:
        try:
            handlers[number](number, frame)
        except BaseException as error:  # noted, and raised as it is
            raised.append(error)
            raise

    if threading.current_thread() is threading.main_thread():  # others are not allowed to handle signals
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers.update({number: handler for number, handler in found.items() if callable(handler)})
        for number in handlers:
            signal.signal(number, call)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is call:
                signal.signal(number, handler)
        if raised:
            raise raised[0]


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, the first cause last."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _first_line(error: BaseException) -> str:
    """Return the first line of an error without its colours; its name where it says nothing."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the user; failures still raise."""
    loggers: list[Any] = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _native_output_dropped():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _native_output_dropped() -> Iterator[None]:
    """Drop what native code writes to the process's standard output: a whole graph when an export fails."""
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)
