"""The second half of compilation: tensors get their places in DRAM, steps become descriptors.

:func:`work_of` reads a product descriptor back; scheduler and simulator share it, so a program says everything itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.sparsity import Sparsity
from ..models.workload import SIZE_LIMIT, Layer, Workload
from . import lowering, program
from .lowering import Product, Prune, Step, Update, VectorPass
from .program import Descriptor, Kind, Program, Stage, descriptor
from .schedule import Mapping, Options, Work, best_mapping

ALIGN = 4096


@dataclass
class Assembler:
    """Places tensors and writes descriptors."""

    workload: Workload
    accelerator: Accelerator
    options: Options
    batch: int
    tensors: dict[str, program.Tensor] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    held_in: dict[str, str] = field(default_factory=dict)  # layer -> the layer whose tensor holds its output
    top: int = 0

    def assemble(self, chains: list[list[Step]], meta: dict[str, object]) -> Program:
        index = {layer.name: i for i, layer in enumerate(self.workload.layers)}
        self.inputs = self.workload.inputs_of()
        for layer, after in lowering.groups_after(self.workload):
            if layer is not None and layer.op != "attention" and lowering.relu_only(after):
                self.held_in[after[0].name] = layer.name
        found: list[Descriptor] = []
        for number, chain in enumerate(chains):
            for position, step in enumerate(chain):
                head = {"layer": index[step.layer.name], "chain": number}
                follows = chain[position + 1 :]
                before = chain[:position]
                if isinstance(step, Product):
                    found.append(self._product(step, head, before, follows))
                elif isinstance(step, VectorPass):
                    found.append(self._vector(step, head))
                elif isinstance(step, Update):
                    found.append(self._update(step, head))
                else:
                    found.append(self._prune(step, head))
        names = tuple(layer.name for layer in self.workload.layers)
        return Program(tuple(found), names, tuple(self.tensors.values()), dict(meta))

    def _place(self, name: str, dtype: str, shape: tuple[int, ...], item_bytes: int = 2) -> int:
        if name in self.tensors:
            return self.tensors[name].address
        size = item_bytes
        for length in shape:
            size *= length
        self.tensors[name] = program.Tensor(name, self.top, size, dtype, shape)
        address, self.top = self.top, self.top + -(-size // ALIGN) * ALIGN
        return address

    def _activation(self, layer: Layer, role: str) -> int:
        """x: input; y: output; dx, dy: their gradients. Channels are innermost; x is the tensor its writer placed."""
        if role == "x":
            source = self.inputs[layer.name]
            if not source:
                return self._place("input", "float16", (self.batch, self._input_elements(layer)))
            return self._activation(self._layer(self.held_in.get(source[0], source[0])), "y")
        if role == "dx" and self._sole_reader(layer):
            source = self.inputs[layer.name][0]
            return self._activation(self._layer(self.held_in.get(source, source)), "dy")
        count = layer.out_elements if role in ("y", "dy") else self._input_elements(layer)
        return self._place(f"{layer.name}.{role}", "float16", (self.batch, count))

    @staticmethod
    def _input_elements(layer: Layer) -> int:
        if layer.op == "attention":
            return 3 * layer.out_elements
        return layer.tokens * layer.ic if layer.op == "linear" else layer.ic * layer.h * layer.w

    def _layer(self, name: str) -> Layer:
        return next(layer for layer in self.workload.layers if layer.name == name)

    def _sole_reader(self, layer: Layer) -> bool:
        """True when nobody else reads the layer's input, so that its dX is that tensor's whole gradient."""
        source = self.inputs[layer.name]
        return bool(source) and sum(source[0] in names for names in self.inputs.values()) == 1

    def _weights(self, layer: Layer, stage: Stage, pattern: Sparsity) -> tuple[int, int]:
        """(values, indices) addresses of the weight operand of a stage; indices 0 where dense."""
        taps = layer.kh * layer.kw
        if pattern.is_dense:
            shape = (layer.oc, taps, layer.ic // layer.groups)
            return self._place(f"{layer.name}.w16", "float16", shape), 0
        groups = layer.weight_elements // pattern.group
        name = f"{layer.name}.{stage.name.lower()}"
        values = self._place(f"{name}.values", "float16", (groups, pattern.keep))
        return values, self._place(f"{name}.indices", "uint8", (groups, pattern.index_bytes), 1)

    def _product(self, item: Product, head: dict[str, int], before: list[Step], follows: list[Step]) -> Descriptor:
        forwarded = (
            self.options.forward_on_chip
            and not (item.transposed or item.swapped)
            and any(isinstance(step, VectorPass) and self._feeds(step, item) for step in before)
            and not any(isinstance(step, Product) for step in before)
        )
        online = any(isinstance(step, Prune) and step.stage is item.stage for step in before) and not item.swapped
        kept = item.stage is Stage.WU and any(isinstance(step, Update) for step in follows)
        flags = (
            program.TRANSPOSED_A * item.transposed
            | program.SWAPPED * item.swapped
            | program.FORWARDED_A * forwarded
            | program.KEEP_ON_CHIP * kept
            | program.ONLINE_PRUNE * online
            | program.OUT_FP32 * item.out_fp32
            | item.epilogue
        )
        y, x, layer = item.y, item.x, item.layer
        addresses = self._operands(item)
        if item.epilogue & (program.WRITE_MASK | program.APPLY_MASK):
            holder = layer.name if item.epilogue & program.WRITE_MASK else self.held_in[self.inputs[layer.name][0]]
            shape = (-(-self.batch * self._layer(holder).out_elements // 8),)
            addresses["mask_address"] = self._place(f"{holder}.mask", "uint8", shape, 1)
        for name, value in (("m", item.m), ("n", item.n), ("k", item.k), ("count", item.count)):
            if value > SIZE_LIMIT:
                hint = "use a smaller batch"
                where = f"layer {layer.name!r}, stage {item.stage.name.lower()}"
                raise NmsatError.rule(where, name, f"at most {SIZE_LIMIT}", value, hint)
        dense_b = item.pattern.is_dense
        base = descriptor(
            Kind.PRODUCT,
            **head,
            stage=item.stage,
            flags=flags,
            m=item.m,
            n=item.n,
            kc=item.kc,
            taps_y=y.taps,
            taps_x=x.taps,
            count=item.count,
            keep=item.pattern.keep,
            group=item.pattern.group,
            block=item.block,
            images=item.images,
            in_h=y.size,
            in_w=x.size,
            in_c=item.channels,
            out_h=y.out,
            out_w=x.out,
            step_y=y.step,
            step_x=x.step,
            tap_step_y=y.tap_step,
            tap_step_x=x.tap_step,
            origin_y=y.origin,
            origin_x=x.origin,
            b_first_y=y.first_tap,
            b_first_x=x.first_tap,
            b_step_y=y.tap_stride,
            b_step_x=x.tap_stride,
            b_taps_x=layer.kw,
            b_stride_k=1 if item.weights_are_b or not dense_b else item.n,
            b_stride_n=(layer.kh * layer.kw if item.weights_are_b else 1) * item.kc if item.weights_are_b else 1,
            c_first_y=y.target_first,
            c_first_x=x.target_first,
            c_step_y=y.target_step,
            c_step_x=x.target_step,
            c_h=y.target_size,
            c_w=x.target_size,
            **addresses,
        )
        work = work_of(base, self.accelerator)
        mapping, _ = best_mapping(self.accelerator, work, self.options)
        return _with_mapping(base, mapping)

    def _feeds(self, step: VectorPass, item: Product) -> bool:
        """True when the product reads what the pass writes."""
        if step.stage is not item.stage:
            return False
        if step.stage is Stage.BP or step.layer is item.layer:
            return True
        return self.inputs[item.layer.name][:1] == (step.layer.name,)

    def _operands(self, item: Product) -> dict[str, int]:
        """DRAM addresses of A, B, indices and C. Attention operands are named by part."""
        layer, stage = item.layer, item.stage
        if layer.op == "attention":
            t, d = layer.tokens, layer.head_dim
            size = item.count * t
            names = {
                "qk": (("q", d), ("k", d), ("scores", t)),
                "av": (("scores", t), ("v", d), ("y", d)),
                "d_scores": (("dy", d), ("v", d), ("dscores", t)),
                "dq": (("dscores", t), ("k", d), ("dq", d)),
                "dv": (("scores", t), ("dy", d), ("dv", d)),
                "dk": (("dscores", t), ("q", d), ("dk", d)),
            }[item.part]
            a, b, c = (self._place(f"{layer.name}.{name}", "float16", (size, width)) for name, width in names)
            return {"a_address": a, "b_address": b, "c_address": c}
        if stage is Stage.WU:
            a, b = self._activation(layer, "x"), self._activation(layer, "dy")
            c = self._place(f"{layer.name}.g", "float32", (layer.weight_elements,), 4)
            return {"a_address": a, "b_address": b, "c_address": c}
        source, target = ("x", "y") if stage is Stage.FF else ("dy", "dx")
        if item.swapped:
            a, _ = self._weights(layer, stage, lowering.DENSE)
            groups = self.batch * layer.out_elements // item.pattern.group
            b = self._place(f"{layer.name}.dy.values", "float16", (groups, item.pattern.keep))
            i = self._place(f"{layer.name}.dy.indices", "uint8", (groups, item.pattern.index_bytes), 1)
        else:
            a = self._activation(layer, source)
            b, i = self._weights(layer, stage, lowering.DENSE if item.block > 1 else item.pattern)
        return {
            "a_address": a,
            "b_address": b,
            "index_address": i,
            "c_address": self._activation(layer, target),
        }

    def _vector(self, item: VectorPass, head: dict[str, int]) -> Descriptor:
        """Forward: the run's input to its last y. Backward: that one's gradient to the product's dy."""
        bits = sum(1 << program.FUNCTIONS.index(name) for name in set(item.functions))
        first, last = item.layers[0], item.layers[-1]
        addresses: dict[str, int] = {}
        if last.op != "attention":
            saved = self._activation(first, "x")
            writers = self.inputs[first.name]
            if item.stage is Stage.FF:
                addresses = {"source_address": saved, "target_address": self._activation(last, "y")}
            else:
                gradient = self._place(f"{last.name}.dy", "float16", (self.batch, last.out_elements))
                target = f"{writers[0] if writers else 'input'}.dy"
                count = (self.batch, lowering.input_elements(first))
                addresses = {"source_address": gradient, "second_address": saved}
                addresses["target_address"] = self._place(target, "float16", count)
        else:
            name = "scores" if item.stage is Stage.FF else "dscores"
            size = self.batch * last.heads * last.tokens
            place = self._place(f"{last.name}.{name}", "float16", (size, last.tokens))
            addresses = {"source_address": place, "target_address": place}
        return descriptor(
            Kind.VECTOR,
            **head,
            stage=item.stage,
            elements=item.elements,
            lane_cycles=item.lane_cycles,
            read_bytes=item.read_bytes,
            write_bytes=item.write_bytes,
            functions=bits,
            **addresses,
        )

    def _update(self, item: Update, head: dict[str, int]) -> Descriptor:
        layer, taps = item.layer, item.layer.kh * item.layer.kw
        shape = (layer.oc, taps, layer.ic // layer.groups)
        w32 = self._place(f"{layer.name}.w32", "float32", shape, 4)
        v32 = self._place(f"{layer.name}.v32", "float32", shape, 4)
        fields: dict[str, int] = {"w32_address": w32, "v32_address": v32}
        bp = item.bp
        dense_copy = item.ff.is_dense or (bp is not None and bp.is_dense) or not item.pregenerate
        if dense_copy:
            fields["w16_address"] = self._weights(layer, Stage.FF, lowering.DENSE)[0]
        if item.pregenerate:
            for stage, pattern in ((Stage.FF, item.ff), (Stage.BP, bp)):
                if pattern is not None and not pattern.is_dense:
                    name = stage.name.lower()
                    fields[f"{name}_keep"], fields[f"{name}_group"] = pattern.keep, pattern.group
                    values, indices = self._weights(layer, stage, pattern)
                    fields[f"{name}_address"], fields[f"{name}_index_address"] = values, indices
        fields["gradient_address"] = self._place(f"{layer.name}.g", "float32", (layer.weight_elements,), 4)
        flags = program.KEEP_ON_CHIP | (program.OUT_FP32 if dense_copy else 0)
        return descriptor(
            Kind.UPDATE,
            **head,
            stage=Stage.WU,
            flags=flags,
            out_channels=layer.oc,
            taps=taps,
            in_channels=layer.ic // layer.groups,
            **fields,
        )

    def _prune(self, item: Prune, head: dict[str, int]) -> Descriptor:
        layer = item.layer
        side = item.stage.name.lower()
        weights = item.elements == layer.weight_elements and self.batch * layer.out_elements != item.elements
        return descriptor(
            Kind.PRUNE,
            **head,
            stage=item.stage,
            out_channels=item.elements // item.pattern.group,
            taps=1,
            in_channels=item.pattern.group,
            flags=0 if weights else program.SWAPPED,
            **{f"{side}_keep": item.pattern.keep, f"{side}_group": item.pattern.group},
        )


def _with_mapping(base: Descriptor, mapping: Mapping) -> Descriptor:
    flags = base["flags"] | program.A_RESIDENT * mapping.a_resident | program.B_RESIDENT * mapping.b_resident
    chosen = {
        "mode": int(mapping.mode),
        "order": int(mapping.order),
        "keep": mapping.keep,
        "group": mapping.group,
        "interleave": mapping.interleave,
        "m_chunk": mapping.m_chunk,
        "n_chunk": mapping.n_chunk,
        "flags": flags,
    }
    return Descriptor(base.kind, base.fields | chosen)


def work_of(item: Descriptor, accelerator: Accelerator) -> Work:
    """What a product descriptor says about sizes and traffic; the inverse of lowering, shared with the simulator."""
    taps_all = item["taps_y"] * item["taps_x"]
    transposed, swapped = item.flag(program.TRANSPOSED_A), item.flag(program.SWAPPED)
    pattern = Sparsity(item["keep"], item["group"])
    if pattern.is_dense:
        pattern = lowering.DENSE
    feature_map = item["images"] * item["in_h"] * item["in_w"] * item["in_c"] * item["count"]
    steps = 1 if transposed else taps_all
    b_elements = item["n"] * steps * item["kc"] * item["count"]
    a_bytes, halo = 2 * feature_map, 0
    if swapped:
        a_bytes, b_elements = 2 * item["m"] * steps * item["kc"] * item["count"], feature_map
    elif not transposed:
        halo = 2 * max(item["taps_y"] - item["step_y"], 0) * item["in_w"] * item["in_c"]
    results = item["m"] * item["n"] * item["count"]
    mask = -(-results // 8)
    c_bytes = results * (4 if item.flag(program.OUT_FP32) else 2)
    c_bytes += mask if item.flag(program.WRITE_MASK) else 0
    return Work(
        item["m"],
        item["n"],
        item["kc"],
        taps_all,
        item["count"],
        pattern,
        transposed,
        a_bytes,
        halo,
        b_elements,
        pattern.is_dense or item.flag(program.ONLINE_PRUNE),
        0 if item.flag(program.KEEP_ON_CHIP) else c_bytes,
        mask if item.flag(program.APPLY_MASK) else 0,
        item.flag(program.FORWARDED_A),
    )
