"""The second half of compilation: steps become descriptors, with operands where :mod:`.memory_map` places them.

:func:`work_of` reads a product descriptor back; scheduler and simulator share it, so a program says everything itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.sparsity import Sparsity
from ..models.workload import SIZE_LIMIT, Layer, Workload
from . import lowering, program
from .edges import LANE_FUNCTIONS, MAX_GRADIENTS, Edges
from .lowering import Product, Prune, Step, Update, VectorPass
from .memory_map import MemoryMap
from .operands import operands
from .overlap import with_overlap
from .program import Descriptor, Kind, Mode, Program, Stage, descriptor
from .schedule import Mapping, Options, Work, best_mapping, os_segment


@dataclass
class Assembler:
    """Writes the descriptors of a program's steps."""

    workload: Workload
    accelerator: Accelerator
    options: Options
    batch: int
    edges: Edges

    def __post_init__(self) -> None:
        self.memory = MemoryMap(self.edges, self.batch)

    def assemble(self, chains: list[list[Step]], meta: dict[str, object]) -> Program:
        """The program of ``chains``: steps of one chain run concurrently."""
        index = {layer.name: i for i, layer in enumerate(self.workload.layers)}
        found: list[Descriptor] = []
        for number, chain in enumerate(chains):
            for position, step in enumerate(chain):
                head = {"layer": index[step.layer.name], "chain": number}
                if isinstance(step, Product):
                    found.append(self._product(step, head, chain[:position], chain[position + 1 :]))
                elif isinstance(step, VectorPass):
                    found.append(self._vector(step, head))
                elif isinstance(step, Update):
                    found.append(self._update(step, head))
                else:
                    found.append(self._prune(step, head))
        names = tuple(layer.name for layer in self.workload.layers)
        return with_overlap(Program(tuple(found), names, tuple(self.memory.tensors.values()), dict(meta)))

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
        fields = operands(item, self.memory, online=online)
        if item.epilogue & program.WRITE_MASK:
            fields["mask_address"] = self.memory.mask(layer.name)
        if item.epilogue & program.APPLY_MASK:
            fields["mask_address"] = self.memory.mask(self.edges.source(layer.name))
        if not self.edges.fits(layer):
            flags |= program.NO_VALUES
        for name, value in (("m", item.m), ("n", item.n), ("k", item.k), ("count", item.count)):
            if value > SIZE_LIMIT:
                hint = "use a smaller batch"
                where = f"layer {layer.name!r}, stage {item.stage.name.lower()}"
                raise NmsatError.rule(where, name, f"at most {SIZE_LIMIT}", value, hint)
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
            c_first_y=y.target_first,
            c_first_x=x.target_first,
            c_step_y=y.target_step,
            c_step_x=x.target_step,
            c_h=y.target_size,
            c_w=x.target_size,
            **({"inner": item.count} | fields),
        )
        work = work_of(base, self.accelerator)
        mapping, found = best_mapping(self.accelerator, work, self.options)
        return _with_mapping(base, mapping, self.accelerator, found.groups)

    def _feeds(self, step: VectorPass, item: Product) -> bool:
        """True when the product reads what the pass writes."""
        if step.stage is not item.stage:
            return False
        if step.stage is Stage.BP or step.layer is item.layer:
            return True
        return self.edges.inputs[item.layer.name][:1] == (step.layer.name,)

    def _vector(self, item: VectorPass, head: dict[str, int]) -> Descriptor:
        """Forward: the run's input to its last y. Backward: that one's gradients to the gradient of its input."""
        first, last = item.layers[0], item.layers[-1]
        names = tuple(item.functions)
        if last.op == "attention":
            fields = self._softmax(last, item.stage)
        elif names == ("statistics",):
            fields = {}
        elif item.gather:
            fields = self._gather(last)
        else:
            fields = self._pass(item.layers, item.stage)
        defined = last.op == "attention" or item.gather or self.edges.defined([*item.layers])
        host = not set(names) <= LANE_FUNCTIONS
        steps = [name for name in names if not (item.gather and name == "add")]
        return descriptor(
            Kind.HOST if host else Kind.VECTOR,
            **head,
            stage=item.stage,
            flags=0 if defined else program.NO_VALUES,
            elements=item.elements,
            lane_cycles=item.lane_cycles,
            read_bytes=item.read_bytes,
            write_bytes=item.write_bytes,
            functions=sum(1 << program.FUNCTIONS.index(name) for name in set(names)),
            steps=program.steps_number(steps[:8]),
            **self._shape(first),
            **fields,
        )

    def _shape(self, first: Layer) -> dict[str, int]:
        """Sizes of a pass's source; tokens and attention rows count as pixels."""
        if first.op == "attention":
            return {"images": self.batch, "h": first.heads, "w": first.tokens, "c": first.tokens}
        if first.is_product:
            return {"images": self.batch, "h": 1, "w": 1, "c": first.out_elements}
        channels = lowering.input_elements(first) // (first.h * first.w * first.tokens)
        return {"images": self.batch, "h": first.h * first.tokens, "w": first.w, "c": channels}

    def _pass(self, layers: tuple[Layer, ...], stage: Stage) -> dict[str, int]:
        first, last, memory = layers[0], layers[-1], self.memory
        fields = {"source_address": memory.input(first)}
        for layer in layers:
            if layer.function == "add" and len(self.edges.sources(layer.name)) > 1:
                fields["second_address"] = memory.output(self.edges.sources(layer.name)[1])
                if stage is Stage.BP and layer is not first:
                    fields["second_target_address"] = memory.handed_aside(layer)
            if layer.function in lowering.NORMS:
                fields["affine_address"] = memory.affine(layer)
                if stage is Stage.BP:
                    fields["rule_address"] = memory.rule()
            if layer.function in lowering.POOLS:
                fields |= {"window_y": layer.kh, "window_x": layer.kw, "stride": layer.stride, "pad": layer.pad}
        if last.function == "cross_entropy":
            fields |= memory.labels(self.batch * last.out_elements // last.oc)
        if stage is Stage.FF:
            return fields | {"target_address": memory.output(last.name)}
        if last.function == "cross_entropy":
            fields["rule_address"] = memory.rule()
        else:
            fields |= self._gradients(last.name)
        return fields | {"target_address": memory.handed_back(first)}

    def _gather(self, layer: Layer) -> dict[str, int]:
        """Add (and mask) the gradients of a product's output."""
        memory = self.memory
        target = memory.gradient(layer.name)
        return {"source_address": memory.output(layer.name), "target_address": target} | self._gradients(layer.name)

    def _gradients(self, name: str) -> dict[str, int]:
        found = self.memory.gradients(name)[:MAX_GRADIENTS]
        keys = ("gradient_address", "gradient_1_address", "gradient_2_address")
        return {"gradients": len(found)} | dict(zip(keys, found, strict=False))

    def _softmax(self, layer: Layer, stage: Stage) -> dict[str, int]:
        """In place; backward the probabilities are the source and their gradients are overwritten."""
        fields = {"source_address": self.memory.scores(layer, Stage.FF), "head_dim": layer.head_dim}
        target = self.memory.scores(layer, stage)
        if stage is Stage.FF:
            return fields | {"target_address": target}
        return fields | {"gradient_address": target, "gradients": 1, "target_address": target}

    def _update(self, item: Update, head: dict[str, int]) -> Descriptor:
        layer, taps, memory = item.layer, item.layer.kh * item.layer.kw, self.memory
        fields = memory.master(layer)
        bp = item.bp
        dense_copy = item.ff.is_dense or (bp is not None and bp.is_dense) or not item.pregenerate
        if dense_copy:
            fields["w16_address"] = memory.weights(layer, Stage.FF, lowering.DENSE)[0]
        if item.pregenerate:
            for stage, pattern in ((Stage.FF, item.ff), (Stage.BP, bp)):
                if pattern is not None and not pattern.is_dense:
                    name = stage.name.lower()
                    fields[f"{name}_keep"], fields[f"{name}_group"] = pattern.keep, pattern.group
                    values, indices = memory.weights(layer, stage, pattern)
                    fields[f"{name}_address"], fields[f"{name}_index_address"] = values, indices
        fields["gradient_address"] = memory.weight_gradient(layer)
        fields["rule_address"] = memory.rule()
        if not item.ff.is_dense:
            fields["mask_keep"], fields["mask_group"] = item.ff.keep, item.ff.group
        flags = program.KEEP_ON_CHIP | (program.OUT_FP32 if dense_copy else 0)
        return descriptor(
            Kind.UPDATE,
            **head,
            stage=Stage.WU,
            flags=flags,
            out_channels=layer.oc,
            taps=taps,
            in_channels=layer.ic // layer.groups,
            groups=layer.groups,
            **fields,
        )

    def _prune(self, item: Prune, head: dict[str, int]) -> Descriptor:
        layer = item.layer
        side = item.stage.name.lower()
        weights = not item.gradient
        fields = {}
        if not weights:
            values, indices = self.memory.pruned_gradient(layer, item.pattern)
            fields = {"bp_address": values, "bp_index_address": indices}
            fields["w16_address"] = self.memory.gradient(layer.name)
        return descriptor(
            Kind.PRUNE,
            **head,
            stage=item.stage,
            out_channels=item.elements // item.pattern.group,
            taps=1,
            in_channels=item.pattern.group,
            flags=0 if weights else program.SWAPPED,
            **{f"{side}_keep": item.pattern.keep, f"{side}_group": item.pattern.group},
            **fields,
        )


def _with_mapping(base: Descriptor, mapping: Mapping, accelerator: Accelerator, groups: int) -> Descriptor:
    segment = os_segment(accelerator, mapping.keep, groups)
    spilled = segment if segment < groups else 0
    flags = base["flags"] | program.A_RESIDENT * mapping.a_resident | program.B_RESIDENT * mapping.b_resident
    chosen = {
        "mode": int(mapping.mode),
        "order": int(mapping.order),
        "keep": mapping.keep,
        "group": mapping.group,
        "interleave": mapping.interleave,
        "k_tile": accelerator.rows if mapping.mode is Mode.WS else spilled,
        "window_lsb": accelerator.window.lsb if accelerator.window else 0,
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
