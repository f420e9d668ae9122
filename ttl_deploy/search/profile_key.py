"""What a measured latency depends on, as one key: graph, exporter, runtime, plan and machine.

Computed from the graph on the meta device; no weight is ever drawn for it. The machine's name and its
load are left out: neither changes how fast a quiet machine of this kind is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import msgspec
import torch

from ttl_deploy.files import sha256_bytes
from ttl_deploy.models.graph.description import describe_nodes
from ttl_deploy.models.graph.measured import collect_ancestors
from ttl_deploy.models.heads import Head
from ttl_deploy.models.places import Place
from ttl_deploy.models.truncation import find_place
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.runtime.machine import describe_machine, installed_versions

MEASUREMENT_VERSION = 1
"""Raised when the export for timing, or the way of timing, changes what is measured."""

_RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlan:
    """How latencies are measured: where, on how many threads, and per cut how many rounds of how many seconds."""

    target: str = "onnxruntime-cpu"
    threads: int = 1
    seconds: float = 1.0
    rounds: int = 3


def latency_keys(specs: Mapping[str, ModelSpec], plan: ProfilePlan) -> dict[str, str]:
    """Return the key of each model's latency, by its name in `specs`: 32 hex digits; equal keys, equal measurements."""
    around = {
        "measurement": MEASUREMENT_VERSION,
        "torch": str(torch.__version__),
        "runtime": _runtime_versions(plan.target),
        "machine": _machine_facts(),
        "plan": [plan.target, plan.threads, plan.seconds, plan.rounds],
    }
    return {name: _hash([around, _describe_model(spec)]) for name, spec in specs.items()}


def _hash(facts: Any) -> str:
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:32]


def _describe_model(spec: ModelSpec) -> list[Any]:
    """Describe the trunk and the head of a truncated model, as they are exported: without dropout."""
    place = find_place(spec)
    nodes = describe_nodes(spec.backbone, spec.image_size)
    wanted = set(nodes) if spec.cut == FULL else {node.name for node in collect_ancestors(place.node)}
    trunk = [description for name, description in nodes.items() if name in wanted]
    facts = [spec.image_size, place.measured.symbolic.channels, spec.classes, trunk, _describe_head(spec, place)]
    return [*facts, *([msgspec.to_builtins(spec.layers)] if spec.layers else [])]


def _describe_head(spec: ModelSpec, place: Place) -> list[Any]:
    if spec.cut == FULL:
        return ["own", spec.classes]
    with torch.device("meta"):
        head = Head(place.features, spec.classes, pool=spec.pool, layout=place.layout, normalised=place.normalised)
    return [spec.pool, place.layout, place.normalised, list(place.features), repr(head)]


def _runtime_versions(target: str) -> dict[str, str]:
    """Return the versions of the runtimes we know, and of the package that adds the target where that is not ours."""
    found = installed_versions(_RUNTIMES)
    for point in entry_points(group="ttl_deploy.targets"):
        if point.name == target and point.dist is not None:
            found[point.dist.name] = point.dist.version
    return found


def _machine_facts() -> list[Any]:
    machine = describe_machine(load_before=0.0, load_after=0.0)
    return [machine.processor, machine.cores, machine.memory_bytes, machine.system]
