"""The table of cuts: how much of the image a cut sees, and what it needs, beside what it costs."""

import dataclasses

import pytest

from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.models import Cut
from ttl_deploy_cli.tables import print_cuts


def print_one(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    cut: Cut = list_cuts("resnet18", image_size=64, classes=2)[0]
    print_cuts([dataclasses.replace(cut, **changes)], backbone="resnet18", image_size=64, classes=2)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"receptive_field": 16}, "16 px 25%"),
        ({"receptive_field": 16, "global_context": True}, "16 px 25%+"),
        ({"receptive_field": 63}, "63 px 98%"),
        ({"receptive_field": 64}, "whole image"),
        ({"receptive_field": 427}, "whole image"),
        ({"receptive_field": None}, "not known"),
        ({"weights_bytes": 102_230_128}, "102.2"),
        ({"weights_bytes": 4_321}, "0.0043"),
        ({"peak_bytes": 9_031_680}, "9.0"),
    ],
)
def test_a_cell_says_it_in_units_people_know(
    capsys: pytest.CaptureFixture[str], changes: dict[str, object], expected: str
) -> None:
    printed = print_one(capsys, **changes)
    (row,) = [line for line in printed.splitlines() if line.strip().startswith("maxpool")]
    assert f" {expected} " in row


def test_the_mark_of_a_gate_is_explained_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    explanation = "+ gates (such as squeeze-and-excitation)"
    assert explanation in print_one(capsys, global_context=True)
    assert explanation not in print_one(capsys, global_context=False)


def test_a_residual_networks_rows_fit_a_line_of_120_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_cuts(list_cuts("resnet50", image_size=224, classes=2), backbone="resnet50", image_size=224, classes=2)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.strip().startswith("layer")]) == 16
    assert max(len(line.rstrip()) for line in lines) <= 120
