"""The byte-level language model: its gradients, its optimizer, its data, and small runs that keep their margins."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.models import Layer, Sparsity, Workload
from nmsat.models.errors import MissingToolError, NmsatError
from nmsat.models.golden import narrow, widen
from nmsat.models.pruning import make_recipe
from nmsat.models.training import (
    BlasProducts,
    GoldenProducts,
    ProductOrder,
    WindowProducts,
    cross_entropy_gradient,
    stage_operands,
)
from nmsat.models.training.adam import AdamRule, AdamState, adam_update
from nmsat.models.training.attention import attention, attention_gradient
from nmsat.models.training.corpus import Corpus, source_files, standard_library, windows
from nmsat.models.training.kernels import fast_narrow, fast_widen
from nmsat.models.training.language import LanguageSettings, language_step, train_language
from nmsat.models.training.transformer import EMBEDDINGS, Transformer, language_backward, language_forward

# Modules that every supported Python has: a fixed slice of the library, whatever its version.
SLICE = (
    "argparse.py",
    "ast.py",
    "bdb.py",
    "cmd.py",
    "codeop.py",
    "colorsys.py",
    "csv.py",
    "dis.py",
    "enum.py",
    "heapq.py",
)


def small(width: int = 32, mlp: int = 64, tokens: int = 16, blocks: int = 1) -> Workload:
    layers: list[Layer] = []

    def each(name: str, function: str, size: int = width) -> None:
        layers.append(Layer(name=name, op="elementwise", function=function, oc=size, tokens=tokens))

    def linear(name: str, ic: int, oc: int, prune: bool = True) -> None:
        layers.append(Layer(name=name, op="linear", ic=ic, oc=oc, tokens=tokens, prune=prune, input_gradient=True))

    for i in range(blocks):
        each(f"block{i}.norm1", "rmsnorm")
        linear(f"block{i}.qkv", width, 3 * width)
        attention = {"heads": 2, "head_dim": width // 2, "tokens": tokens}
        layers.append(Layer(name=f"block{i}.attention", op="attention", **attention))
        linear(f"block{i}.proj", width, width)
        each(f"block{i}.add1", "add")
        each(f"block{i}.norm2", "rmsnorm")
        linear(f"block{i}.fc1", width, mlp)
        each(f"block{i}.relu", "relu", mlp)
        linear(f"block{i}.fc2", mlp, width)
        each(f"block{i}.add2", "add")
    each("norm", "rmsnorm")
    linear("head", width, 256, prune=False)
    each("loss", "cross_entropy", 256)
    return Workload(name="small", layers=tuple(layers))


# --- conversions ----------------------------------------------------------------------------------------------------


def test_widen_twin_is_exact_on_every_pattern():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert fast_widen(every).tobytes() == widen(every).tobytes()


def test_narrow_twin_rounds_as_the_definition():
    """Every binary16 value, every midpoint of two, their neighbours, all exponents at random, NaNs."""
    halves = widen(np.arange(2**16, dtype=np.uint16).view(np.float16)).view(np.uint32).astype(np.int64)
    mids = halves[:, None] + np.array([0x1000, 0x2000]) + np.array([-1, 0, 1])[:, None, None]
    rng = np.random.default_rng(1)
    bits = np.concatenate([mids.reshape(-1) % 2**32, rng.integers(0, 2**32, 500_000)]).astype(np.uint32)
    values = bits.view(np.float32)
    assert fast_narrow(values).tobytes() == narrow(values).tobytes()
    scattered = values[: 2**18].reshape(512, 512).T
    np.testing.assert_array_equal(fast_narrow(scattered).view(np.uint16), narrow(scattered).view(np.uint16))
    assert fast_narrow(np.zeros((0, 3), np.float32)).shape == (0, 3)


# --- the model ------------------------------------------------------------------------------------------------------


def reference_loss(net: Transformer, weights: dict, x: np.ndarray, y: np.ndarray) -> float:
    """Mean loss in binary64, written independently: one sample and one head at a time."""
    w = {name: np.asarray(a, np.float64) for name, a in weights.items()}

    def norm(v: np.ndarray) -> np.ndarray:
        return v / np.sqrt((v**2).mean(axis=-1, keepdims=True) + 1e-5)

    total = 0.0
    dim = net.width // net.heads
    for sample, labels in zip(x, y, strict=True):
        h = w[EMBEDDINGS[0]][sample] + w[EMBEDDINGS[1]][: len(sample)]
        for i in range(net.depth):
            q, k, v = np.split(norm(h) @ w[f"block{i}.qkv"].T, 3, axis=1)
            mixed = np.zeros_like(h)
            for head in range(net.heads):
                s = slice(head * dim, (head + 1) * dim)
                for t in range(len(sample)):
                    p = np.exp(k[: t + 1, s] @ q[t, s] / np.sqrt(dim))
                    mixed[t, s] = p @ v[: t + 1, s] / p.sum()
            h = h + mixed @ w[f"block{i}.proj"].T
            h = h + np.maximum(norm(h) @ w[f"block{i}.fc1"].T, 0) @ w[f"block{i}.fc2"].T
        logits = norm(h) @ w["head"].T
        total += (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]).sum()
    return total / x.size


def prepared(blocks: int = 2, seed: int = 1):
    net = Transformer.of(small(blocks=blocks))
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (2, 3, 16))
    state = AdamState.initial(net.initial_weights(seed))
    operands = stage_operands(net, make_recipe("dense", Sparsity(2, 8), net.workload), state.w16, 0.0)
    embeddings = {name: state.w16[name] for name in EMBEDDINGS}
    return net, state, operands, embeddings, x, y


def test_loss_and_gradients_follow_the_definition():
    """Along a random direction in each weight, the gradient gives what central differences of a binary64 model give.

    Every product and vector result is rounded to 11 bits; a direction's sum over thousands of terms stays within 2 %.
    """
    net, state, operands, embeddings, x, y = prepared()
    trace = language_forward(net, operands, embeddings, x, BlasProducts())
    gradient = cross_entropy_gradient(trace.logits, y.reshape(-1), 4096.0)
    found = language_backward(net, operands, trace, gradient, BlasProducts())
    assert not found.overflow
    assert found.weights.keys() == state.w32.keys()
    held = {name: w.astype(np.float64) for name, w in state.w16.items()}
    rng = np.random.default_rng(5)
    for name, g in found.weights.items():
        direction = g / np.linalg.norm(g) + rng.normal(size=g.shape) / np.sqrt(g.size) / 2
        step = 1e-4
        ends = [reference_loss(net, held | {name: held[name] + s * step * direction}, x, y) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float((g * direction).sum() / 4096), rel=0.02), name


def test_no_byte_sees_the_future():
    net, _, operands, embeddings, x, _ = prepared()
    before = language_forward(net, operands, embeddings, x, BlasProducts()).logits.reshape(3, 16, 256)
    x[:, 9] = (x[:, 9] + 1) % 256
    after = language_forward(net, operands, embeddings, x, BlasProducts()).logits.reshape(3, 16, 256)
    np.testing.assert_array_equal(before[:, :9].view(np.uint16), after[:, :9].view(np.uint16))
    assert (before[:, 9:] != after[:, 9:]).any(axis=(0, 2)).all()


@pytest.mark.parametrize("method", ["bdwp", "sdgp"])
@pytest.mark.parametrize("rows", [None, 4])
def test_golden_order_changes_roundings_only(method, rows):
    """One step with the array's own order of additions: the loss agrees with BLAS's to a rounding of the logits."""
    net, state, _, _, x, y = prepared(blocks=1)
    recipe = make_recipe(method, Sparsity(2, 8), net.workload)
    golden = GoldenProducts(default=ProductOrder(lanes=2, rows=rows))
    fast, loss, _ = language_step(net, state, recipe, x, y, AdamRule(1e-3))
    exact, other, _ = language_step(net, state, recipe, x, y, AdamRule(1e-3), products=golden)
    assert loss == pytest.approx(other, abs=2**-9)  # logits of about 1 are rounded to 2^-11
    for name, w in fast.w32.items():  # Adam's first step is lr * sign(g): a gradient near 0 may differ
        assert np.mean(np.abs(w - exact.w32[name]) > 1e-4) < 0.05, name


class Noted:
    """Window products that note what they were asked."""

    def __init__(self) -> None:
        self.inner, self.asked = WindowProducts(), []

    def multiply(self, layer, stage, part, a, b, pattern, swapped):
        self.asked.append((layer, stage, part))
        return self.inner.multiply(layer, stage, part, a, b, pattern, swapped)


def test_a_window_does_every_product_of_a_step():
    """Attention's too, head by head; the loss agrees with BLAS's to a rounding of the logits."""
    net, state, _, _, x, y = prepared(blocks=1)
    recipe = make_recipe("bdwp", Sparsity(2, 8), net.workload)
    noted = Noted()
    _, loss, _ = language_step(net, state, recipe, x, y, AdamRule(1e-3))
    _, other, _ = language_step(net, state, recipe, x, y, AdamRule(1e-3), products=noted)
    assert loss == pytest.approx(other, abs=2**-9)
    weighted = {(layer.name, stage, 0) for layer in net.layers for stage in ("ff", "bp", "wu")}
    heads = {("block0.attention", "ff", part) for part in range(2)} | {("block0.attention", "bp", i) for i in range(4)}
    assert set(noted.asked) == weighted | heads
    assert all(noted.asked.count(place) == len(x) * net.heads for place in heads)


def test_attention_by_any_products_is_the_same_where_sums_are_exact():
    """Small integers: every order of additions gives the same bits, forward and backward."""
    rng = np.random.default_rng(5)
    qkv, dy = (rng.integers(-2, 3, (2, 5, width)).astype(np.float16) for width in (3 * 8, 8))
    for products in (GoldenProducts(default=ProductOrder(lanes=2, rows=4)), GoldenProducts()):
        y, trace = attention(qkv, 2)
        z, other = attention(qkv, 2, "a", products)
        np.testing.assert_array_equal(trace.chances, other.chances)
        assert np.allclose(y, z, rtol=2**-10, atol=2**-12)  # chances are no integers
        dx, dz = attention_gradient(dy, trace), attention_gradient(dy, other, "a", products)
        assert np.allclose(dx, dz, rtol=2**-8, atol=2**-8)


def test_an_overflow_skips_the_step_and_halves_the_scale():
    net, state, _, _, x, y = prepared(blocks=1)
    large = AdamState(state.w32, state.m32, state.v32, state.w16, type(state.scale)(2.0**24))
    recipe = make_recipe("dense", Sparsity(2, 8), net.workload)
    after, _, skipped = language_step(net, large, recipe, x, y, AdamRule(1e-3))
    assert skipped
    assert after.scale.value == 2.0**23
    assert after.w32 is state.w32
    assert after.steps == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[1:], "layers: must be blocks like those of bytes-lm"),
        (lambda a: [*a[:1], a[1].model_copy(update={"oc": 64}), *a[2:]], "block0.qkv: must be linear, 32 to 96"),
        (lambda a: [*a[:8], a[8].model_copy(update={"ic": 32}), *a[9:]], "block0.fc2.ic: must be fc1's oc"),
        (lambda a: [*a[:-2], a[-2].model_copy(update={"oc": 128}), a[-1]], "head: must be 32 to 256"),
    ],
)
def test_another_network_is_refused(change, message):
    layers = change(list(small().layers))
    with pytest.raises(NmsatError, match=f"^small: {message}"):
        Transformer.of(Workload(name="small", layers=tuple(layers)))


# --- the optimizer --------------------------------------------------------------------------------------------------


def test_adam_follows_its_definition():
    """Five steps against binary64: a dozen binary32 roundings a step."""
    rng = np.random.default_rng(2)
    rule = AdamRule(lr=0.01, weight_decay=0.1, loss_scale=8.0)
    w = w64 = rng.normal(size=500).astype(np.float32)
    m = v = np.zeros(500, np.float32)
    m64 = v64 = np.zeros(500)
    for step in range(1, 6):
        g = rng.normal(size=500).astype(np.float32)
        w, m, v, w16 = adam_update(g, w, m, v, None, rule, step)
        m64, v64 = 0.9 * m64 + 0.1 * g / 8, 0.98 * v64 + 0.02 * (g / 8.0) ** 2
        size = (m64 / (1 - 0.9**step)) / (np.sqrt(v64 / (1 - 0.98**step)) + 1e-8)
        w64 = w64 - 0.01 * (size + 0.1 * w64)
    np.testing.assert_allclose(w, w64, rtol=0, atol=1e-6)
    assert w16.tobytes() == narrow(w).tobytes()


def test_adam_makes_the_decay_term_as_large_as_a_gradient():
    """Why the term is off by default here: alone, lam * w moves a dropped weight by lr whatever lam is."""
    w, zero = np.array([0.5, 0.5, -0.25], np.float32), np.zeros(3, np.float32)
    kept = np.array([True, False, False])
    rule = AdamRule(lr=0.01, weight_decay=0, lam=2e-4)
    found, *_ = adam_update(zero, w, zero, zero, kept, rule, 1)
    np.testing.assert_allclose(found, [0.5, 0.49, -0.24], atol=1e-5)
    assert LanguageSettings().decay == "none"
    for method in ("sr-ste", "bdwp"):
        assert make_recipe(method, Sparsity(2, 8), small(), decay=LanguageSettings().decay).lam == 0


# --- the corpus -----------------------------------------------------------------------------------------------------


def library(folder, count: int):
    for i in range(count):
        (folder / f"m{i:02}.py").write_bytes(bytes([65 + i]) * (i + 1))
    (folder / "tests").mkdir()
    (folder / "tests" / "m.py").write_bytes(b"no")
    (folder / "_sysconfigdata__x.py").write_bytes(b"no")
    (folder / "sub").mkdir()
    (folder / "sub" / "z.py").write_bytes(b"z")
    return standard_library(folder=folder)


def test_every_tenth_file_validates(tmp_path):
    found = library(tmp_path, 12)
    assert source_files(tmp_path) == [*(f"m{i:02}.py" for i in range(12)), "sub/z.py"]
    assert found.validation.tobytes() == b"J" * 10
    assert found.train.tobytes() == b"".join(bytes([65 + i]) * (i + 1) for i in range(12) if i != 9) + b"z"
    facts = found.facts()
    assert (facts["files"], facts["train_bytes"], facts["validation_bytes"]) == (13, 69, 10)


def test_the_digest_pins_names_and_contents(tmp_path):
    before = library(tmp_path, 3)
    assert before.validation.tobytes() == b"z"  # of fewer than ten files the last validates
    (tmp_path / "m01.py").write_bytes(b"BC")
    changed = standard_library(folder=tmp_path)
    (tmp_path / "m01.py").write_bytes(b"BB")
    (tmp_path / "m02.py").rename(tmp_path / "m03.py")
    renamed = standard_library(folder=tmp_path)
    assert len({before.sha256, changed.sha256, renamed.sha256}) == 3


def test_a_library_without_source_is_one_line(tmp_path):
    with pytest.raises(MissingToolError, match=r"^bytes-lm: must have the standard library's source in .*holds no .py"):
        standard_library(folder=tmp_path)
    with pytest.raises(NmsatError, match=r"^bytes-lm: nowhere\.py: must be a readable file of the library"):
        standard_library(("argparse.py", "nowhere.py"))


def test_targets_are_the_inputs_one_byte_on():
    data = np.arange(100, dtype=np.uint8)
    x, y = windows(data, np.array([0, 40, 91]), 8)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(y[:, -1], [8, 48, 99])


# --- runs -----------------------------------------------------------------------------------------------------------

SHORT = LanguageSettings(steps=600, lr=1e-2)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return standard_library(SLICE)


@pytest.fixture(scope="module")
def runs(corpus):
    methods = ("dense", "sdwp", "bdwp", "one-shot")
    return {method: train_language(small(), method, "2:8", corpus=corpus, settings=SHORT) for method in methods}


def test_recipes_keep_their_margins(runs, corpus):
    """A one-block model of 600 steps; it has reached dense 33.0, SDWP 32.3, BDWP 30.6, one-shot 18.8 %."""
    accuracy = {method: run.accuracy for method, run in runs.items()}
    commonest = np.bincount(corpus.validation).max() / len(corpus.validation)
    assert accuracy["dense"] > commonest + 0.04
    assert accuracy["bdwp"] > commonest + 0.02
    assert -0.01 < accuracy["dense"] - accuracy["bdwp"] < 0.06
    assert accuracy["sdwp"] > accuracy["bdwp"] - 0.02
    assert accuracy["one-shot"] < accuracy["dense"] - 0.07
    assert runs["dense"].losses[-1] < runs["dense"].losses[0] - 1


def test_mask_statistics_of_a_run(runs):
    assert len(runs["bdwp"].losses) == 10
    assert len(runs["bdwp"].flips) == 9
    assert 0 < runs["bdwp"].flips[-1] < runs["bdwp"].flips[1] < 0.2
    assert 0.6 < runs["bdwp"].overlap < 0.75  # 0.677 for Gaussian weights
    assert runs["sdwp"].overlap == 0


def test_runs_are_reproducible(corpus):
    few = LanguageSettings(steps=10, batch=4)
    one, two, other = (train_language(small(), "bdwp", "2:8", corpus=corpus, settings=few, seed=s) for s in (1, 1, 2))
    for name, w in one.state.w32.items():
        np.testing.assert_array_equal(w, two.state.w32[name])
        assert (w != other.state.w32[name]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 9}, "training: steps: must be at least 10, not 9"),
        ({"batch": 0}, "training: batch: must be at least 1, not 0"),
        ({"lr": float("inf")}, "training: lr: must be a positive number, not inf"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(NmsatError, match=f"^{message}$"):
        LanguageSettings(**settings)


def test_a_corpus_shorter_than_a_window_is_refused():
    tiny = Corpus(np.zeros(100, np.uint8), np.zeros(16, np.uint8), "3", 2, "0")
    with pytest.raises(NmsatError, match=r"^training: corpus: must be longer than a window of 16, not 16$"):
        train_language(small(), "dense", "2:8", corpus=tiny)


def test_the_command_records_the_corpus(tmp_path, capsys, monkeypatch, corpus):
    monkeypatch.setattr("nmsat.models.training.tasks.standard_library", lambda: corpus)
    monkeypatch.setattr("nmsat.models.training.language.VALIDATION_WINDOWS", 64)
    out = tmp_path / "trained"
    arguments = ["train", "bytes-lm", "--method", "bdwp", "--seeds", "1", "--steps", "10", "--batch", "2"]
    assert main([*arguments, "-o", str(out)]) == 0
    assert "% of bytes of the validation files, 1 seeds" in capsys.readouterr().out
    record = json.loads((out / "accuracy.json").read_text())
    assert record["corpus"] == corpus.facts()
    assert (record["steps"], record["batch"], record["decay"]) == (10, 2, "none")
    loaded = Workload.load(str(out / "workload.yaml"))
    assert loaded.accuracy[0].task == "bytes-lm"
    layer = next(layer for layer in loaded.layers if layer.name == "block1.fc2")
    assert (str(layer.measured("ff")), str(layer.measured("bp"))) == ("2:8", "2:8")
    assert main(["run", str(out / "workload.yaml"), "-a", "sat_8x8", "--batch", "2", "-q"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "bytes-lm --epochs 3",
            "--epochs: must be left out for bytes-lm, not 3; it has --steps, --batch, --lr, --decay",
        ),
        ("digits-mlp --steps 3", "--steps: must be left out for digits-mlp, not 3; it has --epochs, --lr, --decay"),
        ("bytes-lm --steps 5", "training: steps: must be at least 10, not 5"),
        ("bytes-lm --lr -1", "training: lr: must be a positive number, not -1.0"),
    ],
)
def test_bad_options_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["train", *arguments.split(), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"nmsat: {message}\n"
    assert not (tmp_path / "out").exists()
