"""What `bench` prints of a machine whose figures do not repeat."""

import pytest

from ttl_deploy.records.benchmarks import BenchReport, Machine
from ttl_deploy_cli.tables import print_bench


@pytest.mark.parametrize("warnings", [(), ("the clocks are not locked", "the board is too hot")])
def test_a_machines_warnings_are_printed_with_its_figures(capsys, warnings):
    machine = Machine(
        host="board",
        system="Linux",
        processor="aarch64",
        cores=6,
        memory_bytes=8 << 30,
        governor="schedutil",
        load_before=0.0,
        load_after=0.0,
        warnings=warnings,
    )
    print_bench(BenchReport(machine=machine, rows=(), calibration_before_s=1.0, calibration_after_s=1.0))
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("warning: ")] == [f"warning: {one}" for one in warnings]
