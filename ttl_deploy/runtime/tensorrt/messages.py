"""What TensorRT says when it refuses a file, with the cause in our words and what to do about it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_MOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserMessage:
    """One of the parser's errors: its text and code, and the node it is about."""

    text: str
    code: str = ""
    node: str = ""
    operator: str = ""

    def __str__(self) -> str:
        """Return the parser's words, in one line, with the node they are about."""
        about = ", ".join(part for part in (self.operator, self.node, self.code) if part)
        return " ".join(self.text.split()) + (f" ({about})" if about else "")


@dataclass(frozen=True, slots=True)
class _Cause:
    """A pattern in TensorRT's words, and what it means."""

    pattern: str
    meaning: str


_CAUSES = (
    _Cause(
        r"DequantizeLinear.*int32|int32.*DequantizeLinear",
        "biases are quantised to 32-bit integers, which TensorRT does not take: export --format trt --precision int8, "
        "which leaves biases in floats",
    ),
    _Cause(
        r"zero.?point|asymmetric|uint8.*quantiz|quantiz.*uint8",
        "activations are quantised to unsigned 8 bits or with a zero point, as in the files of --format ort, and "
        "TensorRT takes signed and symmetric ones: export --format trt --precision int8",
    ),
    _Cause(
        r"int64|double|64.bit",
        "the file has 64-bit numbers where TensorRT takes none: export it again with this version of ttl-deploy",
    ),
    _Cause(
        r"UNSUPPORTED_NODE|no importer|plugin not found|unsupported operator",
        "TensorRT has no such operator: choose another backbone, or run the file on onnxruntime-cpu",
    ),
    _Cause(
        r"lean runtime|libnvinfer_lean",
        "a version-compatible engine needs the lean runtime: leave --version-compatible out",
    ),
    _Cause(
        r"out of memory|insufficient memory|OutOfMemory",
        "the GPU has too little memory free: close other programs, or give less with --workspace and --batch",
    ),
    _Cause(
        r"Turing|SM75",
        "TensorRT for RTX builds no fp32 layers for Turing (7.5): name another --compute-capability, or "
        "--precision fp16",
    ),
    _Cause(
        r"cudaError 35|insufficient for CUDA|no CUDA-capable device|CUDA initialization failure",
        "there is no NVIDIA driver or GPU here that this version can use: build on a machine with one",
    ),
)


def explain(told: Iterable[str]) -> str:
    """Join what TensorRT said, most of it, and add the causes that are known by their words."""
    lines = [line.strip() for line in dict.fromkeys(told) if line.strip()]
    if not lines:
        return "it gave no reason"
    text = "; ".join(lines[:_MOST]) + (f"; and {len(lines) - _MOST} more" if len(lines) > _MOST else "")
    found = [cause.meaning for cause in _CAUSES if any(re.search(cause.pattern, line, re.I) for line in lines)]
    return f"{text}. That means: {found[0]}" if found else text


def parser_messages(parser: Any) -> tuple[ParserMessage, ...]:
    """Return the errors that an ONNX parser has collected."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return tuple(
        ParserMessage(
            text=error.desc(),
            code=str(error.code()).rpartition(".")[2],
            node=error.node_name(),
            operator=error.node_operator(),
        )
        for error in errors
    )


def make_logger(trt: Any) -> Any:
    """Return a logger for TensorRT that keeps warnings and errors in its lists `warnings` and `errors`."""

    class Logger(trt.ILogger):  # type: ignore[misc] # the module is known only when it is loaded
        """Sorts what it is told by severity."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Take one message."""
            if severity == trt.ILogger.WARNING:
                self.warnings.append(msg)
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and _NOISE not in msg:
                self.errors.append(msg)

    return Logger()


_NOISE = "Thread context has not been set"
"""TensorRT for RTX logs this as an internal error whenever an option is read, and goes on."""
