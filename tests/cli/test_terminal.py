"""What appears on a terminal, in a pipe and in a shell: amount, width, colour, completion, hints."""

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer.main

from ttl_deploy_cli.main import app

COMMANDS = typer.main.get_command(app).commands


def complete(ttl_deploy, words, *, at, **environment):
    words = {"_TTL_DEPLOY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    done = ttl_deploy(**words, **environment)
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_names(ttl_deploy):
    assert complete(ttl_deploy, "ttl-deploy se", at=1) == ["search"]
    assert set(complete(ttl_deploy, "ttl-deploy search --max-", at=2)) == {
        *("--max-bad", "--max-hours", "--max-latency", "--max-params", "--max-macs")
    }
    assert complete(ttl_deploy, "ttl-deploy bench --mode ", at=3) == ["latency", "throughput"]
    assert complete(ttl_deploy, "ttl-deploy search --strategy full,lp", at=3) == ["full,lp-ft"]


def test_completion_needs_no_valid_settings_and_no_torch(ttl_deploy):
    wrong = {"TTL_DEPLOY_NONSENSE": "1"}
    assert complete(ttl_deploy, "ttl-deploy bench --roun", at=2, **wrong) == ["--rounds"]
    script = ttl_deploy(_TTL_DEPLOY_COMPLETE="source_bash", blocked=("torch", "numpy", "rich"))
    assert "complete -o default -F _ttl_deploy_completion ttl-deploy" in script.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_is_taught_by_one_option(tmp_path):
    program = f"{shlex.quote(sys.executable)} -m ttl_deploy_cli"
    lines = f"{program} --show-completion; {program} --install-completion; source ~/.bashrc; complete -p; true"
    (tmp_path / ".bashrc").write_text("# mine\n")
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", lines], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "bash completion installed in" in done.stdout
    assert (tmp_path / ".bashrc").read_text().startswith("# mine\n")
    assert "complete -o default -F" in done.stdout.split("bash completion installed in")[1]


def test_the_help_imports_nothing_heavy(ttl_deploy):
    done = ttl_deploy("--help", blocked=("torch", "numpy", "onnxruntime", "rich", "pydantic", "PIL"))
    assert done.returncode == 0, done.stderr
    assert "--install-completion" in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2], "what a command does fits beside its name in 80 columns"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("serch",), "'search'"),
        (("search", "--epoch", "3"), "Did you mean --epochs"),
        (("bench", "--mode", "latancy"), "Did you mean latency?"),
        (("search", "--backbone", "x", "--data", "x", "--loss", "focl"), "allowed are cross-entropy, focal"),
        (("search", "--backbone", "x", "--data", "x", "--skip", "tst"), "did you mean test?"),
        (("front", "RUN", "--pick", "bst"), "did you mean best?"),
        (("verify", "RUN", "--split", "tes"), "did you mean test"),
        (("cuts", "--backbone", "resnet18", "--pool", "agv"), "did you mean avg"),
        (("cuts", "--backbone", "resnet18", "--target", "onnxruntime"), "did you mean onnxruntime-cpu"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(typed, words, ttl_deploy, run_folder):
    done = ttl_deploy(*(str(run_folder) if word == "RUN" else word for word in typed))
    assert done.returncode == 2
    assert words in done.stderr


def test_quiet_says_nothing_but_the_result_and_verbose_says_more(ttl_deploy, run_folder):
    quiet = ttl_deploy("report", run_folder, "--quiet")
    usual = ttl_deploy("report", run_folder, TTL_DEPLOY_JSON="no")
    verbose = ttl_deploy("report", run_folder, "-v", TTL_DEPLOY_JSON="no")
    assert quiet.stdout == usual.stdout == verbose.stdout
    assert quiet.stderr == ""
    assert "test split was opened" in usual.stderr
    assert "INFO ttl_deploy_cli: json = False, from TTL_DEPLOY_JSON" in verbose.stderr
    refused = ttl_deploy("report", run_folder / "nothing", "-q")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")


def test_verbose_and_quiet_contradict_each_other(ttl_deploy):
    done = ttl_deploy("doctor", "-v", "-q")
    assert done.returncode == 2
    assert "contradict" in done.stderr


def test_verbose_shows_what_libraries_log_and_warn_of():
    code = (
        "import sys, logging, warnings\n"
        "from ttl_deploy_cli.verbosity import choose_level\n"
        "choose_level(int(sys.argv[1]))\n"
        "logging.getLogger('some.package').info('it is told')\n"
        "warnings.warn('something is old')\n"
    )
    said = {
        level: subprocess.run([sys.executable, "-c", code, level], capture_output=True, text=True, check=True)
        for level in ("-1", "0", "1")
    }
    assert (said["-1"].stdout, said["-1"].stderr) == ("", "")
    assert "UserWarning: something is old" in said["0"].stderr
    assert "it is told" not in said["0"].stderr
    assert "INFO some.package: it is told" in said["1"].stderr
    assert "something is old" in said["1"].stderr
    assert said["1"].stdout == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_the_shared_options(name):
    flags = {flag for parameter in COMMANDS[name].params for flag in parameter.opts}
    assert flags >= {"--json", "--config", "-v", "--verbose", "-q", "--quiet"}


def test_report_and_predict_print_json(ttl_deploy, run_folder, tmp_path):
    from PIL import Image

    written = json.loads(ttl_deploy("report", run_folder, "--json").stdout)["written"]
    assert all(Path(path).is_file() for path in written)
    Image.new("L", (40, 40), 100).save(tmp_path / "a.png")
    told = json.loads(ttl_deploy("predict", run_folder, tmp_path / "a.png", "--json").stdout)
    assert (told["predicted"], told["failed"], told["table"]) == (1, 0, "predictions.csv")
    assert told["seconds"] > 0


def on_terminal(arguments, *, cwd, columns, **environment):
    """Return what a command writes to a terminal of so many columns, as the terminal gets it."""
    leader, follower = pty.openpty()
    code = (
        f"import sys; sys.argv = {['ttl-deploy', *map(str, arguments)]!r}\nfrom ttl_deploy_cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        stdout=follower,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": str(columns), "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"} | environment,
    )
    os.close(follower)
    parts, deadline = [], time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(leader)
    assert process.wait(timeout=60) == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


ESCAPE = re.compile(r"\x1b\[")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_tables_fit_eighty_columns_without_colour(environment, run_folder, tmp_path):
    text = on_terminal(["front", run_folder], cwd=tmp_path, columns=80, **environment)
    assert not ESCAPE.search(text)
    table = [line for line in text.splitlines() if re.match(r"\s*(→ +)?(stage\S*|full|cut) {2}|─", line)]
    assert len(table) >= 4
    assert max(map(len, table)) <= 80
    assert "left out, as the terminal is narrow" in text


def test_a_pipe_gets_whole_rows_without_control_characters(ttl_deploy, run_folder):
    done = ttl_deploy("front", run_folder, COLUMNS="80", FORCE_COLOR="")
    assert not ESCAPE.search(done.stdout)
    assert "left out" not in done.stdout
    rows = [line for line in done.stdout.splitlines() if re.match(r"\s*(→ )?(stage\d|full)", line)]
    assert {line.split()[0] if not line.strip().startswith("→") else line.split()[1] for line in rows} >= {"full"}
