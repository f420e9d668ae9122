"""The engine built, asked and timed by NVIDIA's trtexec, where ttl-deploy cannot run."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from .commands import last_lines, run_logged
from .kits import sha256_of
from .machine import describe_machine
from .refusals import GATE, USAGE, RefusedError, say

TIMING = ("--iterations=10", "--warmUp=500")
ENGINE, KEPT = "model.engine", "model.trtexec.engine"


def run_trtexec(trtexec: str, kit: dict[str, Any], options: argparse.Namespace, work: Path) -> None:
    """Build by trtexec, ask the golden images, time it, and write `results.json`; the engine goes into the folder."""
    if max(options.batches) > kit["batch"][2]:
        raise RefusedError(USAGE, f"--batch {max(options.batches)}: this kit's engine takes at most {kit['batch'][2]}")
    load_before = os.getloadavg()[0]
    help_text = run_logged([trtexec, "--help"]).stdout.decode(errors="replace")
    engine = build_engine(trtexec, kit, work, help_text=help_text)
    flags = copying_flags(help_text)
    run = [trtexec, f"--loadEngine={work / ENGINE}", *flags]
    answers = ask_golden(run, kit, work)
    compare(answers, kit)
    times = [
        time_batch(run, kit, work, batch=batch, round_number=number, options=options)
        for number in range(options.rounds)
        for batch in options.batches
    ]
    results = {
        "schema": 1,
        "record": "TargetResults",
        "artifact": kit["artifact"],
        "artifact_sha256": kit["files"][kit["model"]],
        "golden_sha256": kit["files"]["kit/golden_images.bin"],
        "way": "trtexec",
        "target": kit["target"],
        "runtime": "tensorrt " + engine["tensorrt"],
        "precision": kit["precision"],
        "probabilities": [[value if math.isfinite(value) else None for value in row] for row in answers],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "engine": engine,
        "times": times,
        "machine": describe_machine(load_before),
        "notes": ["Timed by trtexec with " + " ".join([*flags, *TIMING]) + "."],
    }
    (work / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")
    keep_engine(work / ENGINE, kit["folder"] / KEPT, version=engine["tensorrt"])


def copying_flags(help_text: str) -> list[str]:
    """Return what makes trtexec 11 copy images and answers, and replay nothing, as 8 and 10 do by themselves."""
    return [flag for flag in ("--includeDataTransfers", "--noCudaGraph") if flag in help_text]


def build_engine(trtexec: str, kit: dict[str, Any], work: Path, *, help_text: str) -> dict[str, Any]:
    """Build the engine into `work`; returns what it is. Raises where trtexec makes none, with its words."""
    engine = work / ENGINE
    command = build_command(trtexec, kit, engine, help_text=help_text)
    say("building the engine: " + " ".join(command))
    began = time.time()
    built = run_logged(command)
    build_s = time.time() - began
    if built.returncode or not engine.is_file():
        raise RefusedError(GATE, f"trtexec built no engine: {last_lines(built)}. {explain(built)}")
    (work / "build.log").write_bytes(built.stdout)
    log = built.stdout.decode(errors="replace")
    return {
        "size_bytes": engine.stat().st_size,
        "sha256": sha256_of(engine),
        "tensorrt": read_version(log) or read_version(help_text) or "unknown",
        "build_s": build_s,
        "gpu": read_gpu(log),
        "command": " ".join(command),
    }


def keep_engine(engine: Path, kept: Path, *, version: str) -> None:
    """Put the finished engine where it belongs, whole or not at all."""
    partial = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(str(engine), str(partial))
        partial.replace(kept)
    finally:
        if partial.exists():
            partial.unlink()
    say(f"the engine is {kept}: it runs on this machine, by TensorRT {version} only")


def build_command(trtexec: str, kit: dict[str, Any], engine: Path, *, help_text: str) -> list[str]:
    """Return the command that builds: strongly typed where trtexec knows that (10 on), by flags with TensorRT 8."""
    smallest, usual, largest = kit["batch"]
    command = [trtexec, f"--onnx={kit['folder'] / kit['model']}", f"--saveEngine={engine}"]
    for kind, count in [("min", smallest), ("opt", usual), ("max", largest)]:
        command.append(f"--{kind}Shapes={shape(kit, count)}")
    if (read_version(help_text) or "10").startswith("8."):
        command += {"fp16": ["--fp16"], "int8": ["--int8"]}.get(kit["precision"], [])
    else:
        command.append("--stronglyTyped")
    if kit["precision"] == "fp32":
        command.append("--noTF32")
    command.append("--buildOnly" if "--skipInference" not in help_text else "--skipInference")
    if kit["workspace_bytes"]:
        command.append(f"--memPoolSize=workspace:{max(1, kit['workspace_bytes'] >> 20)}")
    if kit["builder_level"] is not None and "--builderOptimizationLevel" in help_text:
        command.append(f"--builderOptimizationLevel={kit['builder_level']}")
    return command


def shape(kit: dict[str, Any], count: int) -> str:
    """Return the input's shape for a number of images, as trtexec writes shapes."""
    return "{name}:{0}x{height}x{width}x3".format(count, **kit["input"])


def ask_golden(run: list[str], kit: dict[str, Any], work: Path) -> list[list[float]]:
    """Return what the engine answers to the golden images, one list of probabilities each."""
    say("comparing the engine with the golden answers")
    total, smallest, largest = len(kit["expected"]), kit["batch"][0], kit["batch"][2]
    rows: list[list[float]] = []
    while len(rows) < total:
        count = min(largest, total - len(rows))
        batch = max(count, smallest)
        given = write_images(kit, work, batch=batch, first=len(rows))
        output = work / "answers.json"
        command = [*run, f"--shapes={shape(kit, batch)}"]
        command += [f"--loadInputs={kit['input']['name']}:{given}", f"--exportOutput={output}"]
        done = run_logged([*command, "--iterations=1", "--duration=0", "--warmUp=0"])
        if done.returncode or not output.is_file():
            raise RefusedError(
                GATE, f"trtexec cannot run the engine that it built: {last_lines(done)}. {explain(done)}"
            )
        rows += read_answers(output, kit, batch)[:count]
        output.unlink()
    return rows


def write_images(kit: dict[str, Any], work: Path, *, batch: int, first: int = 0) -> Path:
    """Write golden images, from the `first` on and again from the start, as raw bytes; returns the file."""
    images = (kit["folder"] / "kit" / "golden_images.bin").read_bytes()
    size = kit["input"]["height"] * kit["input"]["width"] * 3
    count = len(images) // size
    chosen = [images[size * (i % count) : size * (i % count + 1)] for i in range(first, first + batch)]
    path = work / f"images-{first}-{batch}.bin"
    path.write_bytes(b"".join(chosen))
    return path


def read_answers(path: Path, kit: dict[str, Any], batch: int) -> list[list[float]]:
    """Read the JSON that `--exportOutput` writes: a list of tensors with `name`, `dimensions` and flat `values`."""
    text = path.read_text(encoding="utf-8")
    # C++ writes nan and inf in letters that JSON does not have.
    text = re.sub(r"(?<=[\s,\[])(-?)nan\b", "NaN", re.sub(r"(?<=[\s,\[-])inf\b", "Infinity", text))
    try:
        (values,) = [one["values"] for one in json.loads(text) if one["name"] == kit["output"]]
        flat = [float(value) for value in values]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            GATE, f"trtexec's answers cannot be read ({error}): use another version of TensorRT"
        ) from error
    classes = len(kit["expected"][0])
    if len(flat) != batch * classes:
        raise RefusedError(
            GATE, f"trtexec gave {len(flat)} numbers, and {batch} x {classes} were expected: wrong model?"
        )
    return [flat[i * classes : (i + 1) * classes] for i in range(batch)]


def compare(answers: list[list[float]], kit: dict[str, Any]) -> None:
    """Raise unless every probability lies within the kit's limit of the expected one."""
    worst = 0.0
    for i, row in enumerate(answers):
        gaps = [abs(value - kit["expected"][i][j]) for j, value in enumerate(row)]
        worst = max([worst] + [gap if math.isfinite(gap) else 1.0 for gap in gaps])
    if worst > kit["limit"]:
        raise RefusedError(
            GATE,
            f"the engine is not the model: against {kit['reference']}, probabilities differ by up to {worst:.2g} "
            f"(allowed {kit['limit']:g}); nothing was written. Build with another version of TensorRT, or export "
            "--precision fp32",
        )
    say(f"{len(answers)} golden images: probabilities differ by up to {worst:.2g} (allowed {kit['limit']:g})")


def time_batch(
    run: list[str],
    kit: dict[str, Any],
    work: Path,
    *,
    batch: int,
    round_number: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Time one process; returns its times in seconds (`endComputeMs - startComputeMs`, and `latencyMs`)."""
    say(f"timing batches of {batch}, round {round_number + 1} of {options.rounds}")
    path = work / f"times-{batch}-{round_number}.json"
    given = write_images(kit, work, batch=max(batch, kit["batch"][0]))
    duration = max(1, math.ceil(options.seconds / options.rounds))  # trtexec 8 takes whole seconds
    command = [*run, f"--shapes={shape(kit, max(batch, kit['batch'][0]))}"]
    command += [f"--loadInputs={kit['input']['name']}:{given}", f"--exportTimes={path}"]
    done = run_logged([*command, f"--duration={duration}", *TIMING])
    try:
        trace = json.loads(path.read_text(encoding="utf-8"))
        if trace and not sum(one["h2dMs"] for one in trace) > 0:
            raise ValueError("it copied no images, so that its latency is not what it is taken for")
        gpu = [(one["endComputeMs"] - one["startComputeMs"]) / 1e3 for one in trace]
        whole = [one["latencyMs"] / 1e3 for one in trace]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedError(GATE, f"trtexec told no times ({error}): {last_lines(done)}") from error
    if done.returncode or not gpu:
        raise RefusedError(GATE, f"trtexec could not time the engine: {last_lines(done)}")
    sizes = {"round": round_number, "batch": max(batch, kit["batch"][0])}
    return {**sizes, "gpu_s": gpu, "with_transfers_s": whole}


def read_version(text: str) -> str:
    """Return the version in trtexec's first line: `[TensorRT v8502]` is 8.5.2, `v101303` is 10.13.3."""
    found = re.search(r"\[TensorRT v([\d.]+)\]", text)
    if not found:
        return ""
    if "." in found.group(1):
        return found.group(1)
    number = int(found.group(1))
    if number < 10000:
        return f"{number // 1000}.{number // 100 % 10}.{number % 100}"
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def read_gpu(text: str) -> str:
    """Return the GPU and its compute capability as trtexec's log names them."""
    name, capability = (re.search(word + r": ([^\n]+)", text) for word in ("Selected Device", "Compute Capability"))
    parts = [name.group(1).strip()] if name else []
    return ", compute capability ".join(parts + ([capability.group(1).strip()] if capability else []))


def explain(done: Any) -> str:
    """Say what to do about the commonest failures."""
    text = done.stdout.decode(errors="replace").lower()
    if "out of memory" in text or "outofmemory" in text:
        return (
            "The GPU has too little memory free: close other programs, or export with --workspace and a smaller --batch"
        )
    if "no cuda-capable device" in text or "cuda initialization" in text or "insufficient" in text:
        return "There is no GPU or driver that this TensorRT can use"
    if "unsupported" in text or "opset" in text or "no importer" in text:
        return "This TensorRT is too old for the file: export with --target jetpack5"
    return "Nothing was written"
