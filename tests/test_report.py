"""Reports: figures with their data, the page in a browser, hostile input."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nmsat.__main__ import main
from nmsat.models import Accelerator, Workload
from nmsat.models.errors import NmsatError
from nmsat.models.workload_file import workload_yaml
from nmsat.reports.figure import STAGES
from nmsat.reports.labels import label
from nmsat.reports.page import Section, render
from nmsat.reports.run_figures import parts_of, run_figures
from nmsat.reports.runs import load_run
from nmsat.simulator import simulate
from nmsat.simulator.explore.layer_fields import LAYER_FIELDS
from nmsat.simulator.explore.spec import AXIS_FIELDS, FIGURES
from nmsat.simulator.result import RunResult

SWEEP = """\
format: nmsat-sweep/1
workload: digits-cnn
axes:
  sparsity: ["2:4", "2:8"]
  rows: [4, 8, 16]
  dram_mb_s: [1000, 8000]
objectives: [seconds, energy_j]
constraints: [{figure: seconds, max: 1.0}]
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Two runs and a sweep."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, pattern in (("dense", "dense"), ("sparse", "2:8")):
        method = "dense" if pattern == "dense" else "bdwp"
        options = ["--method", method, "--sparsity", pattern, "--batch", "32", "-a", "sat_8x8"]
        assert main(["run", "resnet9", *options, "-q", "--json", str(folder / f"{name}.json")]) == 0
    (folder / "sweep.yaml").write_text(SWEEP)
    assert main(["sweep", str(folder / "sweep.yaml"), "-o", str(folder / "sweep"), "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def page(inputs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    names = [str(inputs / name) for name in ("dense.json", "sparse.json", "sweep")]
    assert main(["report", *names, "-o", str(path), "-q"]) == 0
    return path


def browse(page: Path, script: str, folder: Path) -> tuple[str, str]:
    """The page in headless Chromium after ``script`` ran at its end: what the script left in #found, and the console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "no chromium: make test installs it"
    watch = "<script>window.faults=[];addEventListener('error',e=>faults.push(String(e.message)),true);</script>"
    tail = f"<script>const found=document.createElement('pre');found.id='found';found.textContent=JSON.stringify((()=>{{{script}}})());document.body.append(found);</script>"
    text = page.read_text()
    copy = folder / "copy.html"
    copy.write_text(text.replace("<head>", "<head>" + watch, 1).replace("</body>", tail + "</body>", 1))
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--no-first-run",
        "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000",
        "--window-size=390,800", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    left = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert left, done.stdout[-500:]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return left[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"), console


CHECK = """
const tables = [...document.querySelectorAll("table.sortable")];
const clicks = tables.map(table => {
  const heads = [...table.tHead.rows[0].cells], at = heads.length - 1, body = table.tBodies[0];
  const read = () => [...body.rows].map(row => row.cells[at].dataset.value ?? row.cells[at].textContent);
  const before = read();
  heads[at].querySelector("button").click();
  const up = [read(), heads[at].getAttribute("aria-sort")];
  heads[at].querySelector("button").click();
  return {before, up, down: [read(), heads[at].getAttribute("aria-sort")]};
});
return {
  faults: window.faults, clicks, title: document.title,
  images: [...document.images].map(image => image.complete && image.naturalWidth > 300),
  resources: performance.getEntriesByType("resource").map(item => item.name.slice(0, 5)),
  width: [document.documentElement.scrollWidth, document.documentElement.clientWidth],
};
"""


def test_the_page_renders_and_sorts_in_a_browser(page, tmp_path):
    text, console = browse(page, CHECK, tmp_path)
    found = json.loads(text)
    assert found["faults"] == []
    assert console == ""
    assert "resnet9 on sat_8x8" in found["title"]
    assert len(found["images"]) == 2 + 2 * 5 + 2  # comparison, two runs, sweep
    assert all(found["images"])
    assert set(found["resources"]) <= {"data:"}  # nothing is fetched
    assert found["width"][0] <= found["width"][1]  # no sideways scrolling of the page on a phone
    assert len(found["clicks"]) == 2 + 2 + 1
    for click in found["clicks"]:
        numbers = [float(value) for value in click["before"]]
        assert [float(value) for value in click["up"][0]] == sorted(numbers)
        assert [float(value) for value in click["down"][0]] == sorted(numbers, reverse=True)
        assert (click["up"][1], click["down"][1]) == ("ascending", "descending")
    assert any(click["before"] != click["up"][0] for click in found["clicks"])


def test_the_browser_sees_a_planted_fault(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        page.read_text().replace("</main>", '<img src="https://example.org/x.png"></main><script>no();</script>')
    )
    text, console = browse(broken, CHECK, tmp_path)
    assert any("no is not defined" in fault for fault in json.loads(text)["faults"])
    assert "Content Security Policy" in console  # the page forbids itself the network


def test_the_page_says_what_differs(page):
    text = page.read_text()
    assert re.search(r"B is \d\.\d{3} times faster than A", text)
    assert "Settings that differ" in text
    assert "Written by nmsat " in text
    assert text.count("<h2>Limits</h2>") == 1
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)


def test_equal_inputs_give_equal_pages(inputs, page, tmp_path):
    names = [str(inputs / name) for name in ("dense.json", "sparse.json", "sweep")]
    assert main(["report", *names, "-o", str(tmp_path / "again.html"), "-q"]) == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_figures_are_written_with_their_data(inputs, tmp_path):
    names = [str(inputs / "dense.json"), str(inputs / "sparse.json")]
    assert main(["report", *names, "--figures", str(tmp_path / "figures"), "-q"]) == 0
    found = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = {"compare_stages", "compare_layers"}
    stems |= {
        name + end for name in ("cycle_stack", "utilisation", "dataflow", "traffic", "roofline") for end in ("", "_2")
    }
    assert found == {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png", "csv")}
    for stem in stems:
        assert (tmp_path / f"figures/{stem}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (tmp_path / f"figures/{stem}.svg").read_text().startswith("<?xml")


@pytest.fixture(scope="module")
def run() -> RunResult:
    return simulate(Workload.load("resnet9"), Accelerator.load("sat_8x8"), batch=32)


def data(run: RunResult, name: str) -> list[dict[str, str]]:
    (figure,) = [item for item in run_figures(run) if item.name == name]
    return list(csv.DictReader(io.StringIO(figure.to_csv())))


def test_the_cycle_stack_adds_up(run):
    parts = parts_of(run)
    assert sum(map(sum, parts.values())) == pytest.approx(run.totals["cycles"], rel=1e-12)
    assert all(value >= 0 for split in parts.values() for value in split)
    useful = sum(split[0] for split in parts.values()) / run.totals["cycles"]
    assert useful == pytest.approx(run.totals["utilization"], rel=1e-9)
    rows = data(run, "cycle_stack")
    assert [row["stage"] for row in rows] == list(STAGES)


def test_every_product_is_in_the_roofline_and_under_it(run):
    rows = data(run, "roofline")
    products = {(row["layer"], row["stage"]) for row in run.layers if row["stage"] != "vector"}
    assert {(row["layer"], row["stage"]) for row in rows} == products
    peak, bandwidth = (
        2 * 64 * run.meta["accelerator_fields"]["clock_mhz"] / 1e3,
        run.meta["accelerator_fields"]["dram_mb_s"] / 1e3,
    )
    for row in rows:
        assert float(row["useful_gflops"]) <= min(peak, float(row["flop_per_byte"]) * bandwidth) * (1 + 1e-9), row


def test_traffic_and_dataflow_are_the_runs(run):
    rows = data(run, "traffic")
    assert sum(int(row["dram_read_bytes"]) for row in rows) == run.totals["dram_read_bytes"]
    assert sum(int(row["dram_write_bytes"]) for row in rows) == run.totals["dram_write_bytes"]
    flows = {(row["layer"], row["stage"], row["dataflow"]) for row in run.layers if row["stage"] != "vector"}
    assert {(row["layer"], row["stage"], row["dataflow"]) for row in data(run, "dataflow")} <= flows
    assert {row["dataflow"] for row in data(run, "dataflow")} == {"os", "ws"}


def test_a_drawing_is_the_same_every_time(run):
    first, second = run_figures(run)[0], run_figures(run)[0]
    assert first.svg() == second.svg()
    assert first.png() == second.png()


def test_hostile_names_are_text(run):
    evil = '<script>alert(1)</script>"&{{ 7 * 7 }}'
    text = render(evil, [Section(evil, (evil,), command=evil)], evil)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "49" not in text.split("</style>")[1]


def test_a_sweep_over_layers_is_drawn(tmp_path):
    """Axes of layers and of several fields, and a name that would be mathematics, in the page and its figures."""
    network = Workload.load("digits-cnn")
    layers = tuple(layer.model_copy(update={"name": layer.name.replace("conv2", "$a_{$")}) for layer in network.layers)
    (tmp_path / "net.yaml").write_text(workload_yaml(network.model_copy(update={"layers": layers})))
    (tmp_path / "sweep.yaml").write_text(
        f"format: nmsat-sweep/1\nworkload: {tmp_path / 'net.yaml'}\nset: {{batch: 4}}\n"
        "axes: {'layers.$a_{$.pattern': ['1:4', '2:4'], side: [4, 8], layers.*.pad: [1]}\ntogether: {side: [rows, cols]}\n"
    )
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "-o", str(tmp_path / "swept"), "-q"]) == 0
    assert (
        main(["report", str(tmp_path / "swept"), "-o", str(tmp_path / "r.html"), "--figures", str(tmp_path / "f")]) == 0
    )
    text = (tmp_path / "r.html").read_text()
    assert "$a_{$: pattern (N:M)" in text
    assert "layers.$a_{$.pattern: 2 values, 1:4 to 2:4" in text
    assert {path.name for path in (tmp_path / "f").glob("*.svg")} == {"pareto.svg", "axes.svg"}


@pytest.mark.parametrize("semantics", ["scalesim", "cpu"])
def test_other_semantics_are_reported(semantics, tmp_path):
    accelerator = "cortex-a73" if semantics == "cpu" else "sat"
    command = ["run", "mobilenet_v1", "--mode", "infer", "-a", accelerator, "--batch", "1", "-q"]
    command += ["--semantics", "scalesim"] if semantics == "scalesim" else []
    assert main([*command, "--json", str(tmp_path / "r.json")]) == 0
    assert main(["report", str(tmp_path / "r.json"), "-o", str(tmp_path / "r.html"), "-q"]) == 0
    text = (tmp_path / "r.html").read_text()
    assert ("SCALE-Sim&#39;s own formulas" if semantics == "scalesim" else "cycle model of a CPU core") in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("layers"), "layers: must be given"),
        (lambda d: d.update(layers=[]), "layers: must have at least one row"),
        (lambda d: d.update(extra=1), "extra: must be a known key"),
        (lambda d: d["totals"].pop("cycles"), "totals: cycles: must be given"),
        (lambda d: d["totals"].update(seconds="1"), "totals: seconds: must be "),
        (lambda d: d["layers"][0].pop("m"), "layers.0: m: must be an integer >= 0, not None"),
        (lambda d: d["layers"][1].update(cycles=-1), "layers.1: cycles: must be an integer >= 0, not -1"),
        (lambda d: d["layers"][1].update(cycles=True), "layers.1: cycles: must be an integer >= 0, not True"),
        (
            lambda d: d["layers"][0].update(utilization=float("inf")),
            "layers.0: utilization: must be a number >= 0, not inf",
        ),
        (lambda d: d["layers"][0].update(stage="sideways"), "layers.0: stage: must be one of ff, bp, wu, vector"),
    ],
)
def test_broken_results(inputs, tmp_path, change, message):
    broken = json.loads((inputs / "dense.json").read_text())
    change(broken)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(NmsatError, match=re.escape(str(path))) as error:
        load_run(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN_OR_SWEEP: must be at least one file or folder, not []"),
        (["nowhere.json"], "-o: must be given, or --figures, not None"),
        (["nowhere.json", "-o", "r.html"], "nowhere.json: must be an existing file or folder"),
        (["broken.json", "-o", "r.html"], "broken.json: must be JSON"),
        ([".", "-o", "r.html"], "manifest.json: must be an existing file"),
        (["broken.json", "-o", "nowhere/r.html"], "output: must be in an existing folder"),
        (["broken.json", "-o", "r.html", "--figures", "broken.json"], "--figures: must be a folder"),
        (["broken.json", "--study", "x"], "--study: must be given alone"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.json"]


def test_a_sweep_folder_without_its_results(inputs, tmp_path, capsys):
    shutil.copytree(inputs / "sweep", tmp_path / "sweep")
    (tmp_path / "sweep/results.csv").write_text("point,cycles\n1,2,3\n")
    assert main(["report", str(tmp_path / "sweep"), "-o", str(tmp_path / "r.html")]) == 2
    assert "results.csv: line 2: must have 2 columns, not 3" in capsys.readouterr().err
    (tmp_path / "sweep/results.csv").unlink()
    assert main(["report", str(tmp_path / "sweep"), "-o", str(tmp_path / "r.html")]) == 2
    assert "results.csv: must be a readable CSV" in capsys.readouterr().err


def test_everything_that_is_drawn_has_a_name_and_a_unit():
    """No axis or heading shows a field's raw name; what has a unit in its name says it."""
    units = {"_cycles": "cycles", "_bytes": "bytes", "_mhz": "MHz", "_mb_s": "MB/s", "_pj": "pJ", "_pj_per_byte": "pJ a",
             "_j": "J, model", "_bits": "bits", "_gib": "GiB", "_watt": "W", "seconds": "s"}  # fmt: skip
    names = [*FIGURES, *AXIS_FIELDS, *(f"layers.conv1.{field}" for field in LAYER_FIELDS)]
    for name in names:
        text = label(name)
        assert "_" not in text, name
        for suffix, unit in units.items():
            if name.endswith(suffix):
                assert f"({unit}" in text, name
    assert len({label(name) for name in names}) == len(names)
    assert label("layers.*.tokens") == "*: tokens (rows a sample)"
    assert label("width") == "width"
