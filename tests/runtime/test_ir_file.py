"""Our own reading of OpenVINO's files, on good, damaged and hostile ones; openvino is not needed."""

import json

import numpy as np
import pytest

from ttl_deploy.errors import ArtifactError
from ttl_deploy.runtime.ir_file import read_ir_facts

LAYER = """
<layer id="{id}" name="{name}" type="{type}" version="{version}"><data {data}/></layer>"""
TOLD = json.dumps({"a": 'ä<"&>', "n": 1}, ensure_ascii=False, indent=2)


def layer(type_="Const", *, version="opset1", data='element_type="i8" shape="2, 3" offset="0" size="6"'):
    return LAYER.format(id=0, name="w", type=type_, version=version, data=data)


def write(tmp_path, *layers, head='<?xml version="1.0"?>', weights=6, told=TOLD):
    escaped = told.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("\n", "&#10;")
    text = (
        f'{head}<net name="m" version="11"><layers>{"".join(layers)}</layers><edges/>'
        f'<rt_info><ttl_deploy value="{escaped}"/><conversion><x value="1"/></conversion></rt_info></net>'
    )
    (tmp_path / "model.xml").write_text(text, encoding="utf-8")
    (tmp_path / "model.bin").write_bytes(b"\0" * weights)
    return tmp_path / "model.xml"


def test_metadata_layers_and_weights_are_read(tmp_path):
    scales = layer(data='element_type="f32" shape="2" offset="0" size="4"')
    facts = read_ir_facts(write(tmp_path, layer(), scales, layer("Result", data="")))
    assert facts.metadata == {"ttl_deploy": TOLD}
    assert (facts.layers, facts.weights) == (3, {"int8": 6})


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ((layer(version="extension"),), {}, "uses operators of 'extension'"),
        ((layer(version="opset1x"),), {}, "uses operators of 'opset1x'"),
        ((layer(),), {"weights": 5}, "missing or shorter"),
        ((layer(data='element_type="i8" shape="2,3" offset="-9" size="6"'),), {}, "negative sizes"),
        ((layer(data='element_type="i8" shape="2,x" offset="0" size="6"'),), {}, "describes its weights wrongly"),
        ((layer(data='element_type="i8" shape="2,3"'),), {}, "describes its weights wrongly"),
        ((), {}, "holds no layers"),
        ((layer(),), {"head": '<!DOCTYPE net [<!ENTITY a "aaaa">]>'}, "declares a document type"),
    ],
)
def test_what_openvino_would_never_write_is_refused(tmp_path, layers, options, message):
    with pytest.raises(ArtifactError, match=message):
        read_ir_facts(write(tmp_path, *layers, **options))


@pytest.mark.parametrize("content", [b"", b"not xml", b"<net>", b"\xff\xfe", b"<net/>", b"{}"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "model.xml").write_bytes(content)
    with pytest.raises(ArtifactError):
        read_ir_facts(tmp_path / "model.xml")


def test_missing_weights_and_a_missing_file_are_refused(tmp_path):
    path = write(tmp_path, layer())
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ArtifactError, match="missing or shorter"):
        read_ir_facts(path)
    with pytest.raises(ArtifactError, match="cannot read"):
        read_ir_facts(tmp_path / "nothing.xml")


def test_mutated_files_are_read_or_refused_but_never_crash(tmp_path):
    path = write(tmp_path, layer(), layer("Result", data=""))
    original, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(1000):
        damaged = bytearray(original)
        for position in rng.integers(0, len(original), rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_ir_facts(path)
        except ArtifactError:
            refused += 1
    assert refused > 300


def test_facts_agree_with_openvino(tiny, tmp_path):
    openvino = pytest.importorskip("openvino")
    (tmp_path / "model.onnx").write_bytes(tiny.model().SerializeToString())
    model = openvino.Core().read_model(tmp_path / "model.onnx")
    model.set_rt_info(TOLD, "ttl_deploy")
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    facts = read_ir_facts(tmp_path / "model.xml")
    assert facts.metadata["ttl_deploy"] == TOLD
    assert facts.layers == len(model.get_ops())
    assert facts.weights == {"fp32": tiny.weight.size}
