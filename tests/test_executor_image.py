"""The image's tensors by name, the guard around every access, and the verb that steps a program on real data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.dataflow import compile_program
from nmsat.dataflow.program import Descriptor, Kind
from nmsat.models import Accelerator, NmsatError, Workload
from nmsat.simulator import execute, load_tensors, load_weights, new_image, read_tensor


@pytest.fixture(scope="module")
def program():
    return compile_program(Workload.load("digits-mlp"), Accelerator.load("sat_4x4"), batch=4)


def prepared(program):
    """An image with weights (indices of compressed copies must be legal), zero elsewhere."""
    image = new_image(program)
    load_weights(program, image, {f"fc{i}": np.ones((10 if i == 4 else 64, 64), np.float32) for i in range(1, 5)})
    return image


def test_tensors_come_back(program):
    image = new_image(program)
    x = np.arange(4 * 64, dtype=np.float16).reshape(4, 64)
    load_tensors(program, image, {"input": x})
    assert np.array_equal(read_tensor(program, image, "input"), x)
    assert np.count_nonzero(image) <= 2 * x.size


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"nope": np.zeros(1)}, r"^program: tensor: must be one of .*, not 'nope'$"),
        ({"input": np.zeros((4, 64))}, r"^program: input\.dtype: must be float16, not 'float64'$"),
        ({"input": np.zeros(3, np.float16)}, r"^program: input\.shape: must be \(4, 64\), not \(3,\)$"),
    ],
)
def test_wrong_tensors_are_refused_and_nothing_is_written(program, tensors, message):
    image = new_image(program)
    with pytest.raises(NmsatError, match=message):
        load_tensors(program, image, {"labels": np.ones(4, np.int32)} | tensors)
    assert not image.any()


def test_a_compressed_copy_that_nobody_loaded_is_an_error(program):
    with pytest.raises(NmsatError, match=r"^golden: indices of group 0: must be ascending"):
        execute(program, new_image(program))


def test_an_image_of_another_size_is_refused(program):
    with pytest.raises(NmsatError, match=r"^program: image: must be uint8 \(\d+,\) as new_image makes it, not "):
        execute(program, np.zeros(10, np.uint8))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"fc9": np.zeros((2, 2), np.float32)}, r"^program: weights: must be of layers with weights, not 'fc9'$"),
        ({"fc1": np.zeros((64, 64))}, r"^program: fc1\.dtype: must be float32, not 'float64'$"),
        ({"fc1": np.zeros((64, 8), np.float32)}, r"^program: fc1\.w\d\d\.shape: must be \(64, 1, 1, 64\), not "),
        (
            {"fc1": np.zeros(64, np.float32)},
            r"^program: fc1\.shape: must be \(O, kh, kw, I\) or \(O, I\), not \(64,\)$",
        ),
    ],
)
def test_wrong_weights_are_refused(program, weights, message):
    with pytest.raises(NmsatError, match=message):
        load_weights(program, new_image(program), weights)


@pytest.mark.parametrize(
    ("kind", "field", "change"),
    [
        (Kind.PRODUCT, "a_pixel", 1000),  # reads beyond its tensor
        (Kind.PRODUCT, "c_stride_m", 1000),  # writes beyond its tensor
        (Kind.PRODUCT, "b_stride_n", 1000),
        (Kind.PRODUCT, "a_address", 1 << 40),  # no tensor there
        (Kind.PRODUCT, "c_address", 1),  # cuts an element
        (Kind.UPDATE, "w32_address", 2),
        (Kind.UPDATE, "out_channels", 1000),
        (Kind.HOST, "images", 1000),
        (Kind.PRODUCT, "mask_address", 4),  # its mask would be somebody's tensor
    ],
)
def test_a_descriptor_that_leaves_its_tensor_is_an_error(program, kind, field, change):
    items = list(program.descriptors)
    place = next(i for i, item in enumerate(items) if item.kind is kind and item["layer"] != 0)
    items[place] = Descriptor(kind, items[place].fields | {field: items[place][field] + change})
    image = prepared(program)
    load_tensors(program, image, {"rule": np.array([0.1, 0.9, 0, 0, 1], np.float32)})
    if field == "mask_address":
        items[place] = Descriptor(kind, items[place].fields | {"mask_address": items[place]["c_address"]})
    with pytest.raises(NmsatError, match=r"^program: "):
        execute(replace(program, descriptors=tuple(items)), image)


def test_a_label_without_class_and_a_wrong_rule_are_errors(program):
    image = prepared(program)
    with pytest.raises(NmsatError, match=r"^golden: loss_scale: must be a power of two"):
        execute(program, image)
    rule = np.array([0.1, 0.9, 0, 0, 1], np.float32)
    load_tensors(program, image, {"rule": rule, "labels": np.array([0, 1, 2, 10], np.int32)})
    with pytest.raises(NmsatError, match=r"^program: labels: must be 0 to 9, not 10$"):
        execute(program, image)


@pytest.mark.parametrize("task", ["digits-mlp", "digits-cnn"])
def test_the_loss_falls_through_the_program_alone(task, capsys):
    outputs = []
    for _ in range(2):
        assert main(["execute", task, "-a", "sat_4x4", "--batch", "32", "--steps", "25", "--json", "-"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    found = json.loads(outputs[0])
    assert len(found["losses"]) == 25
    assert np.mean(found["losses"][-2:]) < 0.75 * found["losses"][0]
    assert set(found["tensors"]) >= {"fc1.w32", "losses"} if task == "digits-mlp" else {"conv2.ff.values", "losses"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18"], "WORKLOAD: must be one of digits-mlp, digits-cnn"),
        (["digits-mlp", "--mode", "infer"], "--mode: must be train"),
        (["digits-mlp", "--batch", "2000"], "--batch: must be at most 1797"),
        (["digits-mlp", "--lr", "-1"], "lr: must be finite in binary32 and not negative"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert main(["execute", *arguments]) == 2
    assert message in capsys.readouterr().err
