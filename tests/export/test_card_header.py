"""The header of a model card says in YAML what the manifest says, whatever names stand in it."""

from dataclasses import replace

import huggingface_hub
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ttl_deploy.export.card_header import quote, render_header
from ttl_deploy.export.model_card import render_model_card
from ttl_deploy.records.artifacts import Parity

PARITY = Parity(images=1, max_difference=0, mean_difference=0, decisions_flipped=0, limit=1e-4, reference="torch")
HOSTILE = (
    '---\nlicense: mit\n- !!python/object/apply:os.system ["id"]\n"\\ \x85\u2028\ufeff\x00 {{ x }} <script> 肺炎 🫁 #'
)


def header_of(manifest):
    card = render_model_card(manifest, PARITY)
    _, header, rest = card.split("---\n", 2)
    assert rest.startswith(f"\n# {manifest.name}")
    return yaml.safe_load(header)


def test_the_header_tells_scores_with_data_set_and_split(shipped_manifest):
    header = header_of(shipped_manifest)
    assert (header["library_name"], header["pipeline_tag"]) == ("onnx", "image-classification")
    assert {"ttl-deploy", "medical", "onnx", "fp32", "smallnet"} <= set(header["tags"])
    assert header["metrics"] == ["roc_auc"]
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"type": "chests", "name": "chests", "split": "test", "revision": "ab" * 32}
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("roc_auc", 0.91)


def test_the_license_is_left_to_whoever_publishes_and_that_is_said(shipped_manifest):
    card = render_model_card(shipped_manifest, PARITY)
    assert "license" not in header_of(shipped_manifest)
    assert "# license: not stated" in card
    assert "## License\n\nNone is stated here" in card


def test_the_hub_own_reader_finds_the_same_results(shipped_manifest):
    test = shipped_manifest.scores[0]
    scores = (test, replace(test, split="val", value=0.8), replace(test, metric="f1", value=0.7))
    card = huggingface_hub.ModelCard(render_model_card(replace(shipped_manifest, scores=scores), PARITY))
    assert card.data.model_name == shipped_manifest.name
    told = {(one.dataset_name, one.dataset_split, one.metric_type, one.metric_value) for one in card.data.eval_results}
    assert told == {
        ("chests", "test", "roc_auc", 0.91),
        ("chests", "test", "f1", 0.7),
        ("chests", "val", "roc_auc", 0.8),
    }
    assert card.text.strip().startswith(f"# {shipped_manifest.name}")


def test_undefined_scores_are_no_results(shipped_manifest):
    none = replace(shipped_manifest.scores[0], value=None, low=None, high=None, reason="one class only")
    header = header_of(replace(shipped_manifest, scores=(none,)))
    assert "model-index" not in header
    assert "metrics" not in header


@pytest.mark.parametrize(
    ("backbone", "note", "base"),
    [
        ("timm:resnet50.a1_in1k", "model.safetensors covers the trunk", "timm/resnet50.a1_in1k"),
        ("timm:resnet50.a1_in1k", "random initial weights", None),
        ("timm:resnet50", "model.safetensors covers the trunk", None),
        ("resnet18", "resnet18.pth covers the trunk", None),
    ],
)
def test_only_pretrained_networks_that_the_hub_has_are_named_as_the_base(shipped_manifest, backbone, note, base):
    model = replace(shipped_manifest.model, backbone=backbone)
    assert header_of(replace(shipped_manifest, model=model, weights_note=note)).get("base_model") == base


def test_hostile_names_stay_texts(shipped_manifest):
    data = replace(shipped_manifest.data, name=HOSTILE, classes=(HOSTILE, "b", "c"))
    manifest = replace(shipped_manifest, data=data, classes=(HOSTILE, "b", "c"))
    header = yaml.safe_load(render_header(manifest).removeprefix("---\n").removesuffix("---"))
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == HOSTILE
    assert "license" not in header
    assert header.keys() == header_of(shipped_manifest).keys()
    card = huggingface_hub.ModelCard(render_model_card(manifest, PARITY))
    assert card.data.license is None


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_from_yaml(text):
    quoted = quote(text)
    assert "\n" not in quoted
    assert yaml.safe_load(f"- a: {quoted}\n") == [{"a": text}]
