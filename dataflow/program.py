"""The program: one list of fixed-width descriptors that golden model, simulator and RTL all execute.

A descriptor is 256 bytes, little endian. Its first 16 bytes (the head) are the same for every kind; the rest is a
product, a vector operation or a weight update. The field tables below are the only definition of the bit layout.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from ..models.errors import InputFileError

DESCRIPTOR_BYTES = 256
MAGIC = b"NMSATPRG"
VERSION = 2
_HEADER = np.dtype([("magic", "S8"), ("version", "<u4"), ("count", "<u4"), ("symbol_bytes", "<u4"), ("crc32", "<u4")])


class Kind(IntEnum):
    """What a descriptor asks for."""

    END = 0
    PRODUCT = 1
    VECTOR = 2
    UPDATE = 3
    PRUNE = 4
    HOST = 5  # a vector operation that stops the controller: the host computes it and resumes


class Stage(IntEnum):
    """Training stage a descriptor belongs to."""

    FF = 0
    BP = 1
    WU = 2


class Mode(IntEnum):
    """Dataflow of a product."""

    OS = 0
    WS = 1


class Order(IntEnum):
    """Outer chunk loop: MN keeps an activation chunk and walks the weights, NM the other way round."""

    MN = 0
    NM = 1


# Product flags.
TRANSPOSED_A = 1  # A[m, k] is read as X[k, m]: weight-update products
SWAPPED = 2  # the sparse operand is the activation; m and n of the stage are exchanged
A_RESIDENT = 4  # an activation chunk over all of k fits the W2E bank
B_RESIDENT = 8  # a weight chunk over all of k fits the N2S bank
FORWARDED_A = 16  # the vector pass before it in the chain hands A over on chip
RELU = 32  # epilogue: ReLU
STATISTICS = 64  # epilogue: per-column sum and sum of squares (batch normalisation), see section 10
KEEP_ON_CHIP = 128  # the result is consumed by the update that follows in the chain
ONLINE_PRUNE = 256  # B is read dense and pruned by the SORE lanes on its way in
OUT_FP32 = 512  # results leave as binary32, else binary16
WRITE_MASK = 2048  # epilogue: the ReLU's bit plane, for the backward stage
APPLY_MASK = 1024  # epilogue: gradients pass where the ReLU mask bit is set
NO_VALUES = 4096  # timed only: operands or functions without defined values, executors refuse the program

HEAD: list[tuple[Any, ...]] = [
    ("kind", "u1"),
    ("stage", "u1"),
    ("flags", "<u2"),
    ("layer", "<u4"),  # index into the symbols' layer list
    ("chain", "<u4"),  # descriptors of one chain run concurrently, tile by tile
    ("beside", "<u2"),  # bit k: it may start while a descriptor of kind k is at work (dataflow/overlap.py)
    ("reserved", "<u2"),
]
PRODUCT: list[tuple[Any, ...]] = [
    # C[m, n] = sum_k A[m, k] B[k, n], k = taps * kc, repeated `count` times at the repeat strides;
    # block > 1: depthwise, `block` channels computed together of which only the diagonal is wanted
    ("m", "<u4"),
    ("n", "<u4"),
    ("kc", "<u4"),
    ("taps_y", "<u2"),
    ("taps_x", "<u2"),
    ("count", "<u4"),
    ("mode", "u1"),
    ("order", "u1"),
    ("keep", "u1"),
    ("group", "u1"),
    ("interleave", "u1"),
    ("block", "u1"),
    ("window_lsb", "u1"),  # L of the window accumulator; 0: binary32 sums
    ("_pad", "u1"),
    (
        "k_tile",
        "<u4",
    ),  # groups of a k-tile in WS, 0 in OS: an output's sum is cut there; OS with a window: see section 11
    ("m_chunk", "<u4"),
    ("n_chunk", "<u4"),
    # the mapped operand (A; B if SWAPPED) by implicit im2col: input row of output row y and tap t is
    # y*step_y + t*tap_step_y + origin_y, pixels outside are +0, a pixel is a_pixel elements after the one before
    ("images", "<u4"),
    ("in_h", "<u4"),
    ("in_w", "<u4"),
    ("in_c", "<u4"),
    ("a_pixel", "<u4"),
    ("out_h", "<u4"),
    ("out_w", "<u4"),
    ("step_y", "<i2"),
    ("step_x", "<i2"),
    ("tap_step_y", "<i2"),
    ("tap_step_x", "<i2"),
    ("origin_y", "<i4"),
    ("origin_x", "<i4"),
    # the strided operand (B; A if SWAPPED): tap row = b_first_y + t*b_step_y, tap = row*b_taps_x + column, element =
    # tap*b_stride_tap + channel*b_stride_k + column*b_stride_n, counted before compression
    ("b_first_y", "<u2"),
    ("b_first_x", "<u2"),
    ("b_step_y", "<u2"),
    ("b_step_x", "<u2"),
    ("b_taps_x", "<u4"),
    ("b_stride_tap", "<u4"),
    ("b_stride_k", "<u4"),
    ("b_stride_n", "<u4"),
    # output pixel = q * step + first, in a plane of c_h x c_w pixels; element = row*c_stride_m + column*c_stride_n,
    # where a pixel index (of m; of n if SWAPPED) goes through that plane
    ("c_first_y", "<u2"),
    ("c_first_x", "<u2"),
    ("c_step_y", "<u2"),
    ("c_step_x", "<u2"),
    ("c_h", "<u4"),
    ("c_w", "<u4"),
    ("c_stride_m", "<u4"),
    ("c_stride_n", "<u4"),
    ("inner", "<u4"),  # repeat r starts (r % inner)*x_repeat + (r // inner)*x_outer elements after the address
    ("a_address", "<u8"),
    ("b_address", "<u8"),
    ("index_address", "<u8"),
    ("c_address", "<u8"),
    ("mask_address", "<u8"),
    ("a_repeat", "<u8"),
    ("b_repeat", "<u8"),
    ("c_repeat", "<u8"),
    ("a_outer", "<u8"),
    ("b_outer", "<u8"),
    ("c_outer", "<u8"),
]
VECTOR: list[tuple[Any, ...]] = [
    # also HOST. Source (images, h, w, c), channels innermost; `steps` are applied in order to a stream of binary32
    ("elements", "<u8"),  # results
    ("lane_cycles", "<u8"),  # element slots the vector lanes spend
    ("read_bytes", "<u8"),
    ("write_bytes", "<u8"),
    ("functions", "<u4"),  # bit set, see FUNCTIONS
    ("images", "<u4"),
    ("h", "<u4"),
    ("w", "<u4"),
    ("c", "<u4"),
    ("window_y", "<u2"),  # pooling
    ("window_x", "<u2"),
    ("stride", "<u2"),
    ("pad", "<u2"),
    ("steps", "<u8"),  # a byte a step, the first in the lowest: 1 + index into FUNCTIONS
    ("source_address", "<u8"),  # the stored tensor before the first step, in both directions
    ("second_address", "<u8"),  # other operand of add
    ("target_address", "<u8"),  # result; backward: gradient of the source
    ("mask_address", "<u8"),
    ("gradient_address", "<u8"),  # backward: up to three gradients of the result, added in this order
    ("gradient_1_address", "<u8"),
    ("gradient_2_address", "<u8"),
    ("labels_address", "<u8"),  # cross_entropy: int32 classes
    ("loss_address", "<u8"),  # cross_entropy: binary32 loss of every image
    ("rule_address", "<u8"),  # coefficients, see RULE
    ("head_dim", "<u4"),  # softmax: scores are divided by its square root
    ("gradients", "<u4"),  # how many gradient addresses are used
    ("second_target_address", "<u8"),  # backward: gradient of add's other operand where add does not begin the pass
    ("affine_address", "<u8"),  # normalisation: rows of AFFINE, binary32, a word a channel
]
UPDATE: list[tuple[Any, ...]] = [
    ("out_channels", "<u4"),
    ("taps", "<u4"),
    ("in_channels", "<u4"),
    ("ff_keep", "u1"),  # 0: this stage reads the dense binary16 copy
    ("ff_group", "u1"),
    ("bp_keep", "u1"),
    ("bp_group", "u1"),
    ("groups", "<u4"),  # of a grouped convolution
    ("mask_keep", "u1"),  # forward pattern whose dropped weights decay by `lam`; 0: none
    ("mask_group", "u1"),
    ("_pad", "u1", (2,)),
    ("w32_address", "<u8"),
    ("v32_address", "<u8"),
    ("w16_address", "<u8"),
    ("ff_address", "<u8"),
    ("ff_index_address", "<u8"),
    ("bp_address", "<u8"),
    ("bp_index_address", "<u8"),
    ("gradient_address", "<u8"),
    ("rule_address", "<u8"),
]
AFFINE = ("gamma", "beta", "gamma_momentum", "beta_momentum", "gamma_gradient", "beta_gradient", "mean", "variance")
RULE = ("lr", "momentum", "weight_decay", "lam", "loss_scale")  # binary32 words at rule_address
FUNCTIONS = (
    "batchnorm",
    "layernorm",
    "rmsnorm",
    "relu",
    "gelu",
    "silu",
    "sigmoid",
    "swiglu",
    "add",
    "scale",
    "maxpool",
    "avgpool",
    "softmax",
    "cross_entropy",
    "statistics",
)


def _dtype(body: list[Any]) -> np.dtype[Any]:
    fields = np.dtype(HEAD + body)
    spare = DESCRIPTOR_BYTES - fields.itemsize
    if spare < 0:
        raise AssertionError(f"descriptor is {-spare} bytes too long")
    return np.dtype(HEAD + body + ([("_spare", "u1", (spare,))] if spare else []))


DTYPES: dict[Kind, np.dtype[Any]] = {
    Kind.END: _dtype([]),
    Kind.PRODUCT: _dtype(PRODUCT),
    Kind.VECTOR: _dtype(VECTOR),
    Kind.UPDATE: _dtype(UPDATE),
    Kind.PRUNE: _dtype(UPDATE),
    Kind.HOST: _dtype(VECTOR),
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One decoded descriptor: its kind and its named integer fields."""

    kind: Kind
    fields: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    def flag(self, bit: int) -> bool:
        """True when a product flag is set."""
        return bool(self.fields["flags"] & bit)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's place in DRAM."""

    name: str
    address: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Descriptors in execution order, with the symbols a reader and a host need.

    Attributes
    ----------
    descriptors : tuple of Descriptor
        In execution order, without the END that encoding appends.
    layers : tuple of str
        Layer names; a descriptor's ``layer`` indexes it.
    tensors : tuple of Tensor
        DRAM map.
    meta : dict
        Workload, accelerator, method, batch and the like: plain JSON values.
    """

    descriptors: tuple[Descriptor, ...]
    layers: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    meta: dict[str, Any]

    @property
    def dram_bytes(self) -> int:
        """DRAM footprint in bytes."""
        return max((item.address + item.bytes for item in self.tensors), default=0)

    def encode(self) -> bytes:
        """The program as bytes: header, symbols (canonical JSON), descriptors, END."""
        symbols = json.dumps(
            {
                "layers": list(self.layers),
                "meta": self.meta,
                "tensors": [[t.name, t.address, t.bytes, t.dtype, list(t.shape)] for t in self.tensors],
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        symbols += b" " * (-(len(symbols) + _HEADER.itemsize) % DESCRIPTOR_BYTES)
        body = b"".join(_encode_one(item) for item in self.descriptors)
        body += _encode_one(Descriptor(Kind.END, {}))
        header = np.zeros((), _HEADER)
        header["magic"], header["version"] = MAGIC, VERSION
        header["count"], header["symbol_bytes"] = len(self.descriptors) + 1, len(symbols)
        header["crc32"] = zlib.crc32(symbols + body)
        return header.tobytes() + symbols + body

    @classmethod
    def decode(cls, data: bytes, where: str = "program") -> Program:
        """Read :meth:`encode`'s bytes back.

        Raises
        ------
        InputFileError
            If the magic, version, lengths, checksum or a descriptor's kind is wrong.
        """
        if len(data) < _HEADER.itemsize or data[:8] != MAGIC:
            raise InputFileError(f"{where}: must begin with {MAGIC.decode()}; this is not an nmsat program")
        header = np.frombuffer(data, _HEADER, 1)[0]
        if int(header["version"]) != VERSION:
            raise InputFileError(f"{where}: version: must be {VERSION}, not {int(header['version'])}")
        start = _HEADER.itemsize + int(header["symbol_bytes"])
        size = start + int(header["count"]) * DESCRIPTOR_BYTES
        if len(data) != size:
            raise InputFileError(f"{where}: length: must be {size} bytes as its header says, not {len(data)}")
        if zlib.crc32(data[_HEADER.itemsize :]) != int(header["crc32"]):
            raise InputFileError(f"{where}: crc32: must match the content; the file is damaged")
        try:
            symbols = json.loads(data[_HEADER.itemsize : start])
            tensors = tuple(Tensor(n, a, b, d, tuple(s)) for n, a, b, d, s in symbols["tensors"])
            layers, meta = tuple(symbols["layers"]), symbols["meta"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputFileError(f"{where}: symbols: must be the JSON that encode writes; {error}") from None
        items = [
            _decode_one(data[offset : offset + DESCRIPTOR_BYTES], where)
            for offset in range(start, size, DESCRIPTOR_BYTES)
        ]
        if not items or items[-1].kind is not Kind.END:
            raise InputFileError(f"{where}: must end with an END descriptor")
        return cls(tuple(items[:-1]), layers, tensors, meta)

    def readable(self) -> dict[str, Any]:
        """The program as plain JSON: named enums, hexadecimal addresses, zero fields left out."""
        return {
            "format": "nmsat-program/1",
            "meta": self.meta,
            "tensors": [
                {
                    "name": t.name,
                    "address": hex(t.address),
                    "bytes": t.bytes,
                    "dtype": t.dtype,
                    "shape": t.shape,
                }
                for t in self.tensors
            ],
            "descriptors": [self._readable_one(item) for item in self.descriptors],
        }

    def _readable_one(self, item: Descriptor) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "kind": item.kind.name.lower(),
            "layer": self.layers[item["layer"]],
            "stage": Stage(item["stage"]).name.lower(),
        }
        for name, value in item.fields.items():
            if name in ("kind", "layer", "stage") or (not value and name not in ("chain", "mode", "order")):
                continue
            if name == "mode":
                shown[name] = Mode(value).name.lower()
            elif name == "order":
                shown[name] = Order(value).name.lower()
            elif name == "functions":
                shown[name] = functions_of(value)
            else:
                shown[name] = hex(value) if name.endswith("address") else value
        return shown


def functions_of(bits: int) -> list[str]:
    """Names in a ``functions`` bit set."""
    return [name for i, name in enumerate(FUNCTIONS) if bits >> i & 1]


def steps_of(number: int) -> list[str]:
    """Function names in a ``steps`` field, in order."""
    return [FUNCTIONS[code - 1] for code in number.to_bytes(8, "little") if code]


def steps_number(names: Sequence[str]) -> int:
    """The ``steps`` field of up to eight function names."""
    return sum(FUNCTIONS.index(name) + 1 << 8 * place for place, name in enumerate(names))


def field_names(kind: Kind) -> tuple[str, ...]:
    """Names of the fields of a kind, padding left out."""
    return tuple(name for name in DTYPES[kind].names or () if not name.startswith("_"))


def descriptor(kind: Kind, **fields: int) -> Descriptor:
    """Build a descriptor; fields not named are 0, unknown names raise KeyError."""
    known = field_names(kind)
    for name in fields:
        if name not in known:
            raise KeyError(f"{kind.name} has no field {name!r}")
    values = dict.fromkeys(known, 0) | {name: int(value) for name, value in fields.items()}
    return Descriptor(kind, values | {"kind": int(kind)})


def _encode_one(item: Descriptor) -> bytes:
    record = np.zeros((), DTYPES[item.kind])
    for name, value in item.fields.items():
        limits = np.iinfo(record.dtype[name])
        if not limits.min <= value <= limits.max:
            raise OverflowError(f"{item.kind.name}.{name}: {value} does not fit {record.dtype[name]}")
        record[name] = value
    return record.tobytes()


def _decode_one(data: bytes, where: str) -> Descriptor:
    try:
        kind = Kind(data[0])
    except ValueError:
        raise InputFileError(f"{where}: kind: must be one of 0..{len(Kind) - 1}, not {data[0]}") from None
    record = np.frombuffer(data, DTYPES[kind], 1)[0]
    return Descriptor(kind, {name: int(record[name]) for name in field_names(kind)})
