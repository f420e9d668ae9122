"""Stands in for NVIDIA's trtexec: an engine is the ONNX file, run by ONNX Runtime; files are laid out as trtexec's.

Banner and options are those of TensorRT's samples (samples/trtexec, samples/common/sampleReporting.cpp). Every call is
written to `FAKE_TRTEXEC_LOG`. `FAKE_TRTEXEC_FAULT` makes it misbehave: `builds-nothing`, `crash` (when asked for
answers), `wrong-answers`, `nan`, `no-times`, `hang` (while it builds), `fails-late` (in the second round of timing).
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

VERSION = os.environ.get("FAKE_TRTEXEC_VERSION", "v101303")
FAULT = os.environ.get("FAKE_TRTEXEC_FAULT", "")
OLD, NEW = VERSION.startswith("v8"), VERSION.startswith("v11")


def answer(options):
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(options["loadEngine"], providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    name, _, shape = options["shapes"].partition(":")
    source, _, path = options["loadInputs"].partition(":")
    assert name == source == given.name
    images = np.fromfile(path, np.uint8).reshape([int(side) for side in shape.split("x")])
    output = session.run(None, {name: images})[0]
    if not copies(options):
        output = np.zeros_like(output)
    values = [f"{value:.6g}" for value in (output + (0.3 if FAULT == "wrong-answers" else 0)).ravel()]
    if FAULT == "nan":
        values[1] = "nan"
    dimensions = "x".join(map(str, output.shape))
    Path(options["exportOutput"]).write_text(
        f'[\n  {{ "name" : "{session.get_outputs()[0].name}"\n  , "dimensions" : "{dimensions}"\n'
        f'  , "values" : [ {", ".join(values)} ]\n  }}\n]\n'
    )


def copies(options):
    """Tell whether images and answers are copied: TensorRT 11 does so only where that is asked for."""
    return not NEW or "includeDataTransfers" in options


def times(options):
    batch = int(options["shapes"].partition(":")[2].partition("x")[0])
    rows = []
    for number in range(20):
        compute = 1.0 * batch + 0.01 * (number % 3)
        rows.append(
            {
                "startEnqMs": 0.0,
                "endEnqMs": 0.2,
                "startH2dMs": 0.0,
                "endH2dMs": 0.1,
                "startComputeMs": 0.1,
                "endComputeMs": 0.1 + compute,
                "startD2hMs": 0.1 + compute,
                "endD2hMs": 0.15 + compute,
                "h2dMs": 0.1 if copies(options) else 0.0,
                "computeMs": compute,
                "d2hMs": 0.05,
                "latencyMs": 0.15 + compute,
            }
        )
    Path(options["exportTimes"]).write_text(json.dumps([] if FAULT == "no-times" else rows))


def main():
    given = sys.argv[1:]
    with open(os.environ["FAKE_TRTEXEC_LOG"], "a") as log:
        log.write(" ".join(given) + "\n")
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT {VERSION}] # trtexec {' '.join(given)}")
    options = {name.lstrip("-"): value for name, _, value in (one.partition("=") for one in given)}
    if "help" in options:
        print("  --buildOnly" if OLD else "  --skipInference\n  --stronglyTyped\n  --builderOptimizationLevel=N")
        print("  --includeDataTransfers\n  --noCudaGraph" if NEW else "  --useCudaGraph")
        return 0
    print("[I] Selected Device: Orin\n[I] Compute Capability: 8.7")
    if "onnx" in options:
        if FAULT == "hang":
            time.sleep(10)
        if FAULT == "builds-nothing":
            print("[E] Error[2]: OutOfMemory (no further information)\n&&&& FAILED TensorRT.trtexec")
            return 1
        shutil.copyfile(options["onnx"], options["saveEngine"])
    if "exportOutput" in options:
        if FAULT == "crash":
            os.abort()
        answer(options)
    if "exportTimes" in options:
        if FAULT == "fails-late" and "-1.json" in options["exportTimes"]:
            print("[E] Cuda failure: unspecified launch failure")
            return 1
        times(options)
    print("&&&& PASSED TensorRT.trtexec")
    return 0


if __name__ == "__main__":
    sys.exit(main())
