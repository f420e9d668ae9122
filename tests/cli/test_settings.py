"""Flags, config file and defaults become one set of settings."""

from pathlib import Path

import pytest
import typer.main

from ttl_deploy.errors import UsageError
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy_cli.main import app
from ttl_deploy_cli.progress import Estimate
from ttl_deploy_cli.quantities import parse_count, parse_duration_s
from ttl_deploy_cli.settings import OPTIONS, build_settings, parse_cuts, parse_seeds, parse_strategies

CONFIG = """
backbone = "vgg11"
data = "images"
epochs = 7
lr = 0.002
cuts = "layer1,layer2"
seeds = [3, 4]
image-size = 96
rotate-deg = 0.0
max-latency = "5ms"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config file that sets something at every level."""
    path = tmp_path / "search.toml"
    path.write_text(CONFIG)
    return path


def read(config: Path, *flags: str) -> SearchSettings:
    """Return what `search` makes of a config file and flags."""
    command = typer.main.get_command(app)
    root = command.make_context("ttl-deploy", ["search"])
    context = command.commands["search"].make_context("search", ["--config", str(config), *flags], parent=root)
    return build_settings({name: value for name, value in context.params.items() if name in OPTIONS})


def test_two_options_are_enough() -> None:
    assert build_settings({"backbone": "vgg11", "data": "x"}) == SearchSettings(backbone="vgg11", data="x")


def test_a_config_file_sets_any_option(config: Path) -> None:
    settings = read(config)
    assert (settings.backbone, settings.cuts, settings.seeds) == ("vgg11", ("layer1", "layer2"), (3, 4))
    assert (settings.train.epochs, settings.train.lr, settings.decode.image_size) == (7, 0.002, 96)
    assert settings.train.augmentation.rotate_deg == 0.0
    assert settings.max_latency_s == pytest.approx(0.005)


@pytest.mark.parametrize(
    "line", ['strategy = "full, l2-sp?alpha=0.1&beta=2"', 'strategy = ["full", "l2-sp?alpha=0.1&beta=2"]']
)
def test_a_config_file_names_strategies_as_a_list_or_as_on_the_command_line(config: Path, line: str) -> None:
    config.write_text(f"{CONFIG}{line}\n")
    assert read(config).strategies == ("full", "l2-sp?alpha=0.1&beta=2")
    assert read(config, "--strategy", "lp-ft").strategies == ("lp-ft",)


@pytest.mark.parametrize("line", ['strategy = "full,full"', 'strategy = ["full", "full"]', "strategy = []"])
def test_strategies_that_are_given_twice_or_not_at_all_are_refused(config: Path, line: str) -> None:
    config.write_text(f"{CONFIG}{line}\n")
    with pytest.raises(UsageError, match=r"'full' is given twice|strategy is empty"):
        read(config)


def test_a_flag_beats_the_config_file(config: Path) -> None:
    assert read(config, "--epochs", "2", "--backbone", "vgg13").train.epochs == 2


def test_every_option_of_the_config_file_is_a_flag() -> None:
    search = typer.main.get_command(app).commands["search"]
    assert {parameter.name for parameter in search.params} >= OPTIONS


def test_a_value_of_the_wrong_kind_is_refused(config: Path) -> None:
    config.write_text('backbone = "vgg11"\ndata = "x"\nepochs = "many"\n')
    with pytest.raises(UsageError, match="epochs"):
        read(config)


NEEDED = {"backbone": "vgg11", "data": "x"}


def test_balanced_sampling_goes_without_class_weights_unless_they_are_asked_for() -> None:
    train = build_settings(NEEDED | {"sampling": "balanced", "class_weights": None}).train
    assert (train.sampling, train.class_weights) == ("balanced", "none")
    assert build_settings(NEEDED | {"sampling": "shuffled"}).train.class_weights == "balanced"
    with pytest.raises(UsageError, match="counts rare classes twice"):
        build_settings(NEEDED | {"sampling": "balanced", "class_weights": "balanced"})


def test_the_focal_loss_and_a_share_of_the_patients_can_be_asked_for() -> None:
    settings = build_settings(NEEDED | {"loss": "focal", "focal_gamma": 1.5, "train_fraction": 0.1})
    assert (settings.train.loss, settings.train.focal_gamma, settings.train_fraction) == ("focal", 1.5, 0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "hinge"}, "--loss hinge: allowed are cross-entropy, focal"),
        ({"sampling": "weighted"}, "--sampling weighted: allowed are shuffled, balanced"),
        ({"loss": "focl"}, "allowed are cross-entropy, focal; did you mean focal"),
        ({"fit": "strech"}, "--fit strech: allowed are .*; did you mean stretch"),
        ({"precision": "fp33"}, "--precision fp33: allowed are auto, .*; did you mean fp32"),
        ({"pool": "agv"}, "--pool agv: allowed are .*avg"),
        ({"class_weights": "ballanced"}, "--class-weights ballanced: .*did you mean balanced"),
        ({"pick": "fastest"}, "--pick fastest: .*fastest-within-interval"),
        ({"uncertain": "one"}, "--uncertain one: .*did you mean ones"),
        ({"blank": "zero"}, "--blank zero: .*did you mean zeros"),
        ({"loss": "focal", "focal_gamma": -1.0}, "focal_gamma"),
        ({"focal_gamma": 2.0}, "add --loss focal"),
        ({"train_fraction": 0.1, "limit_train": 10}, "--limit-train and --train-fraction"),
        ({"train_fraction": 0.0}, "above 0 and up to 1"),
        ({"train_fraction": 1.5}, "above 0 and up to 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_settings(NEEDED | given)


@pytest.mark.parametrize(("text", "seconds"), [("5ms", 0.005), ("800us", 8e-4), ("0.01s", 0.01), (" 2 MS ", 0.002)])
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "count"), [("2M", 2_000_000), ("500k", 500_000), ("1.5G", 1_500_000_000), ("7", 7)])
def test_counts_may_have_prefixes(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["5", "five ms", "-5ms", "0ms", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration_s(text)


@pytest.mark.parametrize("text", ["2ms", "M", "-1k"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_count(text)


def test_lists_are_separated_by_commas() -> None:
    assert parse_cuts("a, b,") == ("a", "b")
    assert parse_seeds("0,2,5") == (0, 2, 5)
    assert parse_strategies("full, lp-ft?probe=0.3") == ("full", "lp-ft?probe=0.3")
    for parse, text in (
        (parse_cuts, ","),
        (parse_strategies, " ,"),
        (parse_seeds, "0,x"),
        (parse_seeds, "1,1"),
        (parse_seeds, "-1"),
    ):
        with pytest.raises(UsageError):
            parse(text)


def test_the_time_left_follows_the_cost_done_so_far() -> None:
    now = [0.0]
    estimate = Estimate([30.0, 10.0], clock=lambda: now[0])
    assert estimate.left_s is None
    now[0] = 60.0
    estimate.update(0, 0.5)
    assert estimate.share == pytest.approx(15 / 40)
    assert estimate.left_s == pytest.approx(60 * 25 / 15)
    estimate.update(0, 1.0)
    estimate.update(1, 1.0)
    assert estimate.left_s == pytest.approx(0)


@pytest.mark.parametrize("margin", [0.0, -0.02, 0.5, 2, float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(UsageError, match=r"margin = .*: give a difference in AUROC above 0 and below 0\.5"):
        build_settings({"backbone": "vgg11", "data": "x", "margin": margin})


def test_the_margin_is_a_setting_like_any_other(config: Path) -> None:
    config.write_text(f"{CONFIG}margin = 0.03\n")
    assert read(config).margin == 0.03
    assert read(config, "--margin", "0.04").margin == 0.04
