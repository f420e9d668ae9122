"""The command line beats the config file, the file beats the environment, and errors name the place."""

import json
from itertools import product
from pathlib import Path

import pytest
import typer
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from ttl_deploy.errors import RunInterruptedError, UnknownNameError, UsageError
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy_cli.main import app
from ttl_deploy_cli.sources import (
    ORIGINS,
    PREFIX,
    RESERVED,
    describe_origins,
    option_name,
    options_of,
    store_origins,
    typed_command,
)

COMMAND = typer.main.get_command(app)
COMMANDS = COMMAND.commands


def understand(name, *arguments):
    root = COMMAND.make_context("ttl-deploy", [name])
    return COMMANDS[name].make_context(name, [str(argument) for argument in arguments], parent=root)


@pytest.fixture
def config(tmp_path: Path):
    def write(text):
        path = tmp_path / "all.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(("flag", "general", "table", "special", "variable"), list(product([True, False], repeat=5)))
def test_of_five_places_the_first_that_says_something_wins(
    flag, general, table, special, variable, config, monkeypatch
):
    path = config(("rounds = 13\n" if general else "") + ("[bench]\nrounds = 12\n" if table else ""))
    if special:
        monkeypatch.setenv("TTL_DEPLOY_BENCH_ROUNDS", "14")
    if variable:
        monkeypatch.setenv("TTL_DEPLOY_ROUNDS", "15")
    context = understand("bench", "--config", path, *(["--rounds", "11"] if flag else []))
    said = zip((flag, table, general, special, variable), (11, 12, 13, 14, 15), strict=True)
    assert context.params["rounds"] == next((value for is_said, value in said if is_said), 5)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_can_be_a_variable(name, monkeypatch):
    for option, parameter in options_of(COMMANDS[name]).items():
        if option in ("config", "verbose", "quiet"):
            continue
        kind = parameter.type_descriptor.annotation
        choices = parameter.type_descriptor.choices
        whole = str(12 if parameter.max is None else parameter.max)
        text = str(choices[-1]) if choices else "yes" if parameter.is_flag else whole if kind is int else "0.5"
        if parameter.is_flag and parameter.default is True:
            text = "off"
        if option == "timeout":
            text = "12"
        with monkeypatch.context() as patch:
            for needed in (one for one in COMMANDS[name].params if one.required and one is not parameter):
                if needed.param_type_name == "option":
                    patch.setenv(PREFIX + option_name(needed).upper(), "x")
            patch.setenv(f"{PREFIX}{name.upper()}_{option.upper()}", text)
            positional = [one for one in COMMANDS[name].params if one.param_type_name == "argument" and one.required]
            context = understand(name, *["x"] * len(positional))
        value = context.params[parameter.name]
        assert value is not None
        assert value != parameter.default, option


def test_no_general_variable_is_also_a_command_own_one():
    general = {option for command in COMMANDS.values() for option in options_of(command)}
    special = {f"{name}_{option}" for name, command in COMMANDS.items() for option in options_of(command)}
    assert not general & special
    assert not {PREFIX + name.upper() for name in general | special} & RESERVED


def test_one_file_serves_all_commands_and_each_takes_what_it_has(config):
    path = config("seconds = 2\nepochs = 3\n[cuts]\nclasses = 7\n[bench]\nthreads = 2\n")
    bench = understand("bench", "--config", path)
    assert (bench.params["seconds"], bench.params["threads"]) == (2.0, 2)
    assert bench.obj.unused == ("epochs",)
    cuts = understand("cuts", "--config", path, "--backbone", "x")
    assert (cuts.params["classes"], cuts.params["threads"]) == (7, 1)


def test_what_a_command_needs_may_stand_in_the_file_or_the_environment(config, monkeypatch):
    assert understand("cuts", "--config", config('backbone = "vgg11"')).params["backbone"] == "vgg11"
    monkeypatch.setenv("TTL_DEPLOY_BACKBONE", "vgg13")
    assert understand("cuts").params["backbone"] == "vgg13"


def test_the_file_itself_may_be_named_by_the_environment(config, monkeypatch):
    monkeypatch.setenv("TTL_DEPLOY_CONFIG", str(config("rounds = 9")))
    assert understand("bench").params["rounds"] == 9
    assert understand("bench", "--rounds", "4").params["rounds"] == 4


def test_lists_flags_and_options_that_repeat(config, monkeypatch):
    path = config('seeds = [0, 4]\ncuts = ["a", "b"]\nflip = false\n[subgroups]\nby = ["sex", "age"]\n')
    search = understand("search", "--config", path)
    assert (search.params["seeds"], search.params["cuts"], search.params["flip"]) == ("0,4", "a,b", False)
    assert understand("subgroups", "--config", path).params["by"] == ["sex", "age"]
    monkeypatch.setenv("TTL_DEPLOY_BY", "view,site")
    monkeypatch.setenv("TTL_DEPLOY_FLIP", "YES")
    assert understand("subgroups").params["by"] == ["view", "site"]
    assert understand("search").params["flip"] is True
    assert understand("search", "--no-flip").params["flip"] is False


def test_an_empty_variable_and_the_cache_are_no_settings(monkeypatch):
    monkeypatch.setenv("TTL_DEPLOY_ROUNDS", "")
    monkeypatch.setenv("TTL_DEPLOY_CACHE", "/somewhere")
    context = understand("bench")
    assert (context.params["rounds"], context.obj.settings) == (5, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("roundz = 3", ("'roundz'", "did you mean rounds", "all.toml")),
        ("[bench]\nepochs = 3", ("'epochs'", "all.toml, [bench]")),
        ("[export]\nroundz = 3", ("'roundz'", "all.toml, [export]")),
        ("[benhc]\nrounds = 3", ("table 'benhc'", "did you mean bench", "all.toml")),
        ('config = "other.toml"', ("'config'", "all.toml")),
        ('rounds = "3"', ("rounds = '3'", "all.toml", "a whole number")),
        ("rounds = 3.5", ("rounds = 3.5", "a whole number")),
        ("rounds = true", ("rounds = True", "a whole number")),
        ("seconds = false", ("seconds = False", "a number")),
        ("pin = 1", ("pin = 1", "true or false")),
        ('pin = "yes"', ("pin = 'yes'", "true or false")),
        ("batch = true", ("batch = True", "a text")),
        ('batch = ["1,2"]', ("a comma",)),
        ("batch = 2026-01-01", ("a text",)),
        ("trtexec = [{a = 1}]", ("a text",)),
        ("rounds = ", ("cannot read the config file", "all.toml")),
        ("rounds = 1", ("'--rounds'", "(from", "all.toml")),
        ('mode = "throughpout"', ("'--mode'", "Did you mean throughput?", "(from", "all.toml")),
    ],
)
def test_what_cannot_be_used_in_a_file_is_named_with_its_place(text, words, config):
    with pytest.raises((UsageError, typer.BadParameter)) as caught:
        understand("bench", "--config", config(text))
    message = caught.value.format_message() if isinstance(caught.value, typer.BadParameter) else str(caught.value)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("TTL_DEPLOY_ROUNDZ", "3", ("did you mean TTL_DEPLOY_ROUNDS",)),
        ("TTL_DEPLOY_BENCH_EPOCHS", "3", ("unknown environment variable", "TTL_DEPLOY_EPOCHS")),
        ("TTL_DEPLOY_ROUNDS", "many", ("'--rounds'", "(from TTL_DEPLOY_ROUNDS)")),
        ("TTL_DEPLOY_PIN", "perhaps", ("pin = 'perhaps' in TTL_DEPLOY_PIN", "true or false")),
        ("TTL_DEPLOY_CONFIG", "/nowhere.toml", ("cannot read the config file /nowhere.toml",)),
    ],
)
def test_what_cannot_be_used_in_the_environment_is_named_with_its_place(variable, text, words, monkeypatch):
    monkeypatch.setenv(variable, text)
    with pytest.raises((UsageError, typer.BadParameter)) as caught:
        understand("bench")
    message = caught.value.format_message() if isinstance(caught.value, typer.BadParameter) else str(caught.value)
    assert all(word in message for word in words), message


def test_a_wrong_variable_of_another_command_stands_in_nobody_way(monkeypatch):
    monkeypatch.setenv("TTL_DEPLOY_SEARCH_EPOCHS", "many")
    assert understand("bench").params["rounds"] == 5


def test_a_setting_that_the_command_refuses_is_told_with_its_place(ttl_deploy, tmp_path):
    (tmp_path / "a.toml").write_text('backbone = "vgg11"\nloss = "hinge"\n')
    done = ttl_deploy("search", "--config", "a.toml", TTL_DEPLOY_DATA="x")
    assert done.returncode == 2
    assert "--loss hinge: allowed are cross-entropy, focal (loss is from a.toml)" in done.stderr
    done = ttl_deploy("search", "--config", "a.toml", "--loss", "hinge", TTL_DEPLOY_DATA="x")
    assert "from a.toml" not in done.stderr


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20))
def test_any_text_of_a_variable_is_taken_as_the_flag_takes_it_or_refused_with_its_place(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTL_DEPLOY_ROUNDS", text)
        try:
            rounds = understand("bench").params["rounds"]
        except typer.BadParameter as error:
            message = error.format_message()
        else:
            assert rounds == (understand("bench", f"--rounds={text}").params["rounds"] if text else 5)
            return
    assert message.endswith("(from TTL_DEPLOY_ROUNDS)")


def test_the_origins_are_told_and_the_command_can_be_typed_again(config, monkeypatch):
    monkeypatch.setenv("TTL_DEPLOY_DATA", "my images")
    monkeypatch.setenv("TTL_DEPLOY_ROUNDS", "3")
    path = config('backbone = "vgg11"\nepochs = 3\n')
    context = understand("search", "--config", path, "--epochs", "2")
    assert describe_origins(context) == {
        "backbone": str(path),
        "data": "TTL_DEPLOY_DATA",
        "epochs": "command line",
        "config": "command line",
    }
    again = typed_command(context, ["search", "--config", str(path), "--epochs", "2"])
    assert again == f"TTL_DEPLOY_DATA='my images' ttl-deploy search --config {path} --epochs 2"


def test_unknown_names_are_the_error_of_unknown_names(config):
    with pytest.raises(UnknownNameError):
        understand("bench", "--config", config("roundz = 1"))


def test_a_begun_run_keeps_where_its_settings_came_from(tmp_path, config, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    monkeypatch.setenv("TTL_DEPLOY_DATA", "images")
    context = understand("search", "--config", config("epochs = 3\n[search]\nworkers = 2\n"), "--backbone", "vgg11")
    with store_origins(context, run):
        pass
    assert not (run.path / ORIGINS).exists(), "the search refused its settings before it began"

    def begin_and_stop():
        with store_origins(context, run):
            run.config.write_text("{}")
            run.ledger.append("profiled", "full", {})
            raise RunInterruptedError("stopped", signal_number=2)

    with pytest.raises(RunInterruptedError):
        begin_and_stop()
    origins = json.loads((run.path / ORIGINS).read_text())
    assert (origins["data"], origins["backbone"]) == ("TTL_DEPLOY_DATA", "command line")
    assert origins["epochs"].endswith("all.toml")
    assert origins["workers"].endswith("all.toml, [search]")
    with store_origins(understand("search", "--backbone", "vgg13"), run):
        pass
    assert json.loads((run.path / ORIGINS).read_text()) == origins, "the first settings are those of the run"
