"""A cocotb testbench of your own around a block of this package, in Icarus.

Your design is `pruner`: it places the generated SORE and counts the words that leave. Your test drives it with the
package's stream agents and holds it to the golden model. Run as a script, this file writes the Verilog, builds it and
hands itself to cocotb as the test module. Needs the extra `cosim` (pip install "nmsat[cosim]") and Icarus Verilog.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import cocotb
from cocotb_tools.runner import get_runner

from nmsat.models import Accelerator
from nmsat.rtl.blocks import component_of
from nmsat.rtl.simulators.cocotb_bench import CocotbBench
from nmsat.rtl.testbench import BLOCKS, StreamDriver, StreamMonitor
from nmsat.rtl.verilog import verilog

ACCELERATOR = Accelerator.load("sat_4x4").replace(max_keep=2, max_group=4, sore_lanes=2)

YOURS = """\
module pruner(input clk, input rst, input [{i}:0] i__payload, input i__valid, output i__ready,
              output [{o}:0] o__payload, output o__valid, input o__ready, output reg [15:0] words);
  sore engine(.clk(clk), .rst(rst), .i__payload(i__payload), .i__valid(i__valid), .i__ready(i__ready),
              .o__payload(o__payload), .o__valid(o__valid), .o__ready(o__ready));
  always @(posedge clk)
    if (rst) words <= 0;
    else if (o__valid && o__ready) words <= words + 1;
endmodule
"""


@cocotb.test()
async def prunes_like_golden(dut):
    """Twenty random cases with pauses on both sides: every bit as golden says, no word lost, the count right."""
    bench = CocotbBench(dut)
    bench.clear(["rst", "i__payload", "i__valid", "o__ready"])
    rng, total = random.Random(1), 0
    for number in range(20):
        case = BLOCKS["sore"].draw(rng, ACCELERATOR)  # words to send, and what golden.compress and pack make of them
        driver = StreamDriver(bench, "i", case.arguments["words"], idle=0.3, seed=number)
        monitor = StreamMonitor("o", stall=0.4, seed=number)
        await bench.reset()
        for _ in range(40 + 20 * len(case.expected)):
            for agent in (driver, monitor):
                agent.drive(bench)
            await bench.settle()
            for agent in (driver, monitor):
                agent.sample(bench)
            await bench.tick()
        await bench.settle()
        assert case.bits_differing(monitor.words) == 0, case.parameters
        assert not monitor.broken
        assert bench.get("words") == len(case.expected)
        total += len(case.expected)
    Path(os.environ["RESULT"]).write_text(f"20 cases, {total} words, 0 bits differ")


def main() -> None:
    """Build and run."""
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        design = verilog(component_of("sore", ACCELERATOR), "sore")
        width = {port.name: port.width for port in design.emitted.ports}
        (folder / "sore.v").write_text(design.text)
        (folder / "pruner.v").write_text(YOURS.format(i=width["i__payload"] - 1, o=width["o__payload"] - 1))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parent), *sys.path])
        runner = get_runner("icarus")
        logging.getLogger(type(runner).__qualname__).addHandler(logging.NullHandler())
        log, result = folder / "log", folder / "result"
        times = {"timescale": ("1ns", "1ps")}
        sources = [folder / "sore.v", folder / "pruner.v"]
        runner.build(sources=sources, hdl_toplevel="pruner", build_dir=folder, log_file=log, **times)
        with suppress(SystemExit):  # how the runner says that a test failed
            runner.test(
                test_module=here.stem, hdl_toplevel="pruner", build_dir=folder, test_dir=folder, log_file=log,
                results_xml=str(folder / "results.xml"), extra_env={"RESULT": str(result)}, **times,
            )  # fmt: skip
        if not result.exists():
            sys.exit(log.read_text()[-3000:])
        print(result.read_text())


if __name__ == "__main__":
    main()
