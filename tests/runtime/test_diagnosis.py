"""What a machine can do, with parts of it broken on purpose: every child process is a real one."""

from importlib.metadata import version

import pytest

from ttl_deploy import plugins
from ttl_deploy.records import codec
from ttl_deploy.records.diagnosis import Diagnosis, ExtraState
from ttl_deploy.runtime import diagnosis
from ttl_deploy.runtime.diagnosis import diagnose, examine_cache, try_extra

from .boards import build_orin_nano


@pytest.fixture(scope="module")
def whole():
    """Return this machine's own diagnosis, without the imports that take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "_RISKY", {})
        return diagnose()


@pytest.fixture
def quick(monkeypatch):
    """Leave out what takes long: all targets but one, most of the base, imports of torchvision."""
    monkeypatch.setattr(diagnosis, "BASE", {"packaging": "packaging"})
    monkeypatch.setattr(diagnosis, "_RISKY", {})
    monkeypatch.setattr(plugins, "names", lambda table: ("openvino-cpu",))


@pytest.fixture
def without_children(quick, monkeypatch):
    """Leave out everything that needs a child process."""
    monkeypatch.setattr(plugins, "names", lambda table: ())
    monkeypatch.setattr(diagnosis, "_attempt", lambda function, *arguments: function(*arguments))


def target(found, name="openvino-cpu"):
    return next(state for state in found.targets if state.name == name)


def test_this_machine_runs_the_reference_target(whole):
    reference = target(whole, "onnxruntime-cpu")
    assert reference.ready
    assert reference.runtime == f"onnxruntime {version('onnxruntime')}"
    assert [one.precision for one in reference.abilities] == ["fp32", "int8"]
    assert {state.name for state in whole.targets} == set(plugins.names("targets"))
    assert whole.packages["numpy"] == version("numpy")
    assert whole.exit_code == 0


def test_a_diagnosis_can_be_stored_and_read(whole):
    assert codec.from_builtins(Diagnosis, codec.to_builtins(whole)) == whole


def test_a_missing_extra_is_told_with_the_command_that_adds_it_and_is_no_problem(quick, tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'openvino'\", name='openvino')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = diagnose()
    assert target(found).problem == (
        "target 'openvino-cpu' needs the extra [openvino]: pip install 'ttl-deploy[openvino]'"
    )
    assert not any("openvino-cpu" in problem.what for problem in found.problems)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise ImportError('libtbb.so.12: cannot open shared object file')", "libtbb.so.12: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "killed by signal 11"),
        ("import os; os._exit(3)", "exited with code 3"),
    ],
    ids=["library missing", "segfault", "exit"],
)
def test_a_broken_runtime_is_a_problem_with_a_remedy_and_the_base_works(quick, tmp_path, monkeypatch, content, words):
    (tmp_path / "openvino.py").write_text(f"{content}\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = diagnose()
    assert words in target(found).problem
    (problem,) = [one for one in found.problems if "openvino-cpu" in one.what]
    assert "--force-reinstall" in problem.remedy
    assert found.exit_code == 0


def test_a_runtime_that_hangs_is_given_up(quick, tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(diagnosis, "_PATIENCE_S", 1.5)
    assert "gave no answer within 1.5 s" in target(diagnose()).problem


def test_without_the_reference_target_the_base_does_not_work(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "names", lambda table: ("onnxruntime-cpu",))
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('no version information available')\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = diagnose()
    assert "no version information" in target(found, "onnxruntime-cpu").problem
    assert found.exit_code == 6


TRAIN = ExtraState(
    name="train",
    purpose="",
    versions={"torch": "2.13.0+cpu", "torchvision": "0.28.0"},
    lacking=(),
    command="pip install 'ttl-deploy[train]'",
)


@pytest.mark.parametrize(
    ("failure", "words", "remedy"),
    [
        ("OSError('libcudart.so.13: cannot open')", "libcudart.so.13", "--force-reinstall 'ttl-deploy[train]'"),
        (
            "RuntimeError('operator torchvision::nms does not exist')",
            "torchvision 0.28.0 was built for CUDA and torch 2.13.0 was not",
            "--index-url https://download.pytorch.org/whl/cpu torch==2.13.0 torchvision==0.28.0",
        ),
    ],
)
def test_an_installed_extra_that_cannot_be_imported_is_a_problem(tmp_path, monkeypatch, failure, words, remedy):
    monkeypatch.setattr(diagnosis, "_RISKY", {"train": ("a_broken_part", "json")})
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_broken_part.py").write_text(f"raise {failure}\n")
    (problem,) = try_extra(TRAIN)
    assert words in problem.what
    assert problem.remedy.endswith(remedy)
    assert problem.exit_code == 0


def test_a_driver_that_does_not_answer_is_a_problem(quick, tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text(
        "class NVMLError(Exception): pass\ndef nvmlInit(): raise NVMLError('Driver/library version mismatch')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = diagnose()
    assert found.gpus == ()
    (problem,) = [one for one in found.problems if "NVML" in one.what]
    assert "version mismatch" in problem.what
    assert found.exit_code == 0


def test_a_kernel_that_tells_nothing_is_a_problem_and_no_failure(without_children, tmp_path):
    found = diagnose(tmp_path)
    assert found.processor.instructions == ()
    assert any("/proc/cpuinfo" in problem.remedy for problem in found.problems)
    assert found.exit_code == 0


def test_a_jetsons_warnings_are_problems(without_children, tmp_path):
    found = diagnose(build_orin_nano(tmp_path))
    assert found.jetson.power_mode == "25W (1)"
    assert any("not locked" in problem.what for problem in found.problems)


def test_a_cache_below_a_file_is_not_writable(without_children, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "file" / "cache"))
    assert not examine_cache().writable
    found = diagnose()
    assert found.exit_code == 74
    assert any("TTL_DEPLOY_CACHE" in problem.remedy for problem in found.problems)


def test_looking_at_the_cache_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "a" / "b"))
    cache = examine_cache()
    assert cache.writable
    assert cache.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(without_children, monkeypatch):
    monkeypatch.setattr(diagnosis, "_ENOUGH_BYTES", 1 << 62)
    assert any("are free for" in problem.what for problem in diagnose().problems)
