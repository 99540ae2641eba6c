"""PyTorch's own exports made here and now: both ONNX exporters, torch.export, torch.ao.pruning, read as they come.

`.ci/run` runs this file in an environment with torch (CPU). `make test` leaves it out (marker `torch`): there the
committed fixtures stand for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmsat.models import Accelerator
from nmsat.models.errors import InputFileError
from nmsat.models.importers import import_network
from nmsat.simulator import simulate

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
pytestmark = [pytest.mark.torch, pytest.mark.skipif(torch is None, reason="pip install -e '.[torch]'")]
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def maker():
    found = importlib.util.spec_from_file_location("make_networks", FIXTURES / "make_networks.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.pruning announces its successor
        found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fresh(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        maker.main(folder)
    return folder


def facts(path: Path) -> list[dict]:
    return import_network(path, batch=4).layers


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir() if path.suffix in (".onnx", ".pt2")))
def test_fresh_exports_are_read_as_the_committed_ones(name, fresh):
    """Patterns 2:4, 2:8 and 4:16, BN folded and not; weights may differ in the last bits of a folded scale."""
    assert facts(fresh / name) == facts(FIXTURES / name)
    found, committed = (import_network(folder / name).network.weights for folder in (fresh, FIXTURES))
    for layer, weights in committed.items():
        np.testing.assert_allclose(found[layer], weights, rtol=1e-5, atol=1e-7)


def test_every_fixture_is_made_by_the_script(fresh):
    assert {path.name for path in fresh.iterdir()} == {
        p.name for p in FIXTURES.iterdir() if p.is_file() and p.suffix != ".py"
    }


def exported(model, x, **options) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of weights that share a storage
        torch.export.save(torch.export.export(model.eval(), (x,), **options), file)
    return file.getvalue()


def test_an_archive_as_torch_writes_it(maker, tmp_path):
    """Stack traces, stored members, and sample inputs, which are a pickle nobody opens."""
    torch.manual_seed(3)
    model = maker.Cnn()
    maker.prune(model.down.weight, 2, 4)
    content = exported(model, torch.randn(2, 3, 16, 16))
    assert any("sample_inputs" in name for name in zipfile.ZipFile(io.BytesIO(content)).namelist())
    (tmp_path / "net.pt2").write_bytes(content)
    found = import_network(tmp_path / "net.pt2", batch=8)
    down = model.down.weight.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found.network.weights["down"], down)
    assert {row["layer"]: row["pattern"] for row in found.layers}["down"] == "2:4"
    assert simulate(found.without_batch(), Accelerator.load("sat_8x8"), batch=8).totals["cycles"] > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_number_formats(dtype, tmp_path):
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8, bias=False)).to(getattr(torch, dtype))
    (tmp_path / "net.pt2").write_bytes(exported(model, torch.randn(2, 16).to(getattr(torch, dtype))))
    weights = import_network(tmp_path / "net.pt2").network.weights["0"]
    expected = model[0].weight.detach().to(torch.float32 if dtype != "float16" else torch.float16).numpy()
    np.testing.assert_array_equal(weights[:, 0, 0], expected)


def test_views_of_one_storage(tmp_path):
    """A weight that is a transposed view of a larger parameter keeps its values."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.randn(3, 16, 8)
            self.one, self.two = torch.nn.Parameter(whole[1].t()), torch.nn.Parameter(whole[2].t())

        def forward(self, x):
            return torch.nn.functional.linear(torch.nn.functional.linear(x, self.one), self.two.t())

    torch.manual_seed(5)
    model = Tied()
    (tmp_path / "net.pt2").write_bytes(exported(model, torch.randn(2, 16)))
    found = import_network(tmp_path / "net.pt2").network.weights
    np.testing.assert_array_equal(found["one"][:, 0, 0], model.one.detach().numpy())
    np.testing.assert_array_equal(found["two"][:, 0, 0], model.two.detach().numpy().T)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (lambda: torch.nn.ConvTranspose2d(4, 4, 3), (1, 4, 8, 8), "conv_transpose2d.* is not supported"),
        (lambda: torch.nn.LSTM(4, 4), (5, 1, 4), "lstm .*is not supported"),
        (lambda: torch.nn.Conv3d(4, 4, 3), (1, 4, 8, 8, 8), "conv3d .*is not supported"),
    ],
)
def test_layers_that_a_workload_cannot_hold_are_refused(layer, shape, message, tmp_path):
    (tmp_path / "net.pt2").write_bytes(exported(layer(), torch.randn(*shape)))
    with pytest.raises(InputFileError, match=message):
        import_network(tmp_path / "net.pt2")
