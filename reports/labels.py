"""What people call a figure or field, and its unit: the labels of axes, headings and sentences."""

from __future__ import annotations

from ..simulator.explore.layer_fields import PREFIX, is_layer_field

_FIGURES = {
    "cycles": ("time", "cycles"),
    "compute_cycles": ("time the array is busy", "cycles"),
    "stall_cycles": ("time the array waits", "cycles"),
    "vector_exposed_cycles": ("vector work not hidden", "cycles"),
    "dram_read_bytes": ("read from DRAM", "bytes"),
    "dram_write_bytes": ("written to DRAM", "bytes"),
    "dram_footprint_bytes": ("DRAM footprint", "bytes"),
    "seconds": ("time", "s"),
    "utilization": ("utilisation of the array", "0 to 1"),
    "gflops_dense_equivalent": ("throughput", "dense-equivalent GFLOP/s"),
    "energy_j": ("energy", "J, model"),
    "energy_low_j": ("energy, low", "J, model"),
    "energy_high_j": ("energy, high", "J, model"),
    "speedup_over_dense": ("speed-up over dense", "x"),
    "lut": ("look-up tables", "LUT, estimate"),
    "ff": ("flip-flops", "FF, estimate"),
    "dsp": ("multiplier blocks", "DSP, estimate"),
    "uram": ("UltraRAM blocks", "URAM, estimate"),
}
_FIELDS = {
    "workload": ("network", ""),
    "method": ("training method", ""),
    "sparsity": ("pattern", "N:M"),
    "batch": ("batch", "samples"),
    "mode": ("mode", ""),
    "pregenerate": ("weights pruned ahead", "yes or no"),
    "forward_on_chip": ("activations stay on chip", "yes or no"),
    "energy_table": ("energy table", ""),
    "dram_channels": ("DRAM channels", ""),
    "dram_gib": ("DRAM capacity", "GiB"),
    "dram_interleave_bytes": ("DRAM stripe", "bytes"),
    "axi_data_bits": ("memory port", "bits"),
    "axi_outstanding": ("read bursts in flight", ""),
    "axi_outstanding_writes": ("write bursts in flight", ""),
    "prefetch_descriptors": ("descriptors fetched ahead", ""),
    "overlap_units": ("units overlap", "0 or 1"),
    "memory_latency_cycles": ("memory latency", "cycles"),
    "rows": ("array rows", ""),
    "cols": ("array columns", ""),
    "adder_latency_cycles": ("adder latency", "cycles"),
    "multiplier_latency_cycles": ("multiplier latency", "cycles"),
    "slr_hop_cycles": ("region border", "cycles"),
    "max_keep": ("largest N", ""),
    "max_group": ("largest M", ""),
    "w2e_bytes": ("activation buffer", "bytes a bank"),
    "n2s_bytes": ("weight buffer", "bytes a bank"),
    "output_bytes": ("output buffer", "bytes a bank"),
    "dataflow": ("dataflow", ""),
    "interleave": ("interleaved outputs", "0 or 1"),
    "tile_overlap": ("tiles overlap", "0 or 1"),
    "dram_overlap": ("memory overlaps array", "0 or 1"),
    "accumulator": ("accumulator", ""),
    "window_lsb": ("window's lowest bit", "L"),
    "window_bits": ("window's width", "bits"),
    "vector_lanes": ("vector lanes", ""),
    "wuve_lanes": ("WUVE lanes", ""),
    "sore_lanes": ("SORE lanes", ""),
    "clock_mhz": ("clock", "MHz"),
    "dram_mb_s": ("DRAM bandwidth", "MB/s"),
    "mac_os_pj": ("multiply-add, OS", "pJ"),
    "mac_ws_pj": ("multiply-add, WS", "pJ"),
    "select_pj": ("N:M select", "pJ"),
    "sore_compare_pj": ("SORE comparison", "pJ"),
    "wuve_weight_pj": ("weight update", "pJ"),
    "vector_slot_pj": ("vector slot", "pJ"),
    "buffer_pj_per_byte": ("buffer access", "pJ a byte"),
    "dram_pj_per_byte": ("DRAM access", "pJ a byte"),
    "static_watt": ("static power", "W"),
}
_LAYER_FIELDS = {
    "op": ("operation", ""),
    "ic": ("input channels", ""),
    "oc": ("output channels", ""),
    "kh": ("kernel height", ""),
    "kw": ("kernel width", ""),
    "h": ("input height", ""),
    "w": ("input width", ""),
    "stride": ("stride", ""),
    "pad": ("padding", ""),
    "groups": ("groups", ""),
    "tokens": ("tokens", "rows a sample"),
    "heads": ("heads", ""),
    "head_dim": ("head size", ""),
    "function": ("function", ""),
    "prune": ("may be pruned", "yes or no"),
    "pattern": ("pattern", "N:M"),
    "input_gradient": ("has an input gradient", "yes or no"),
}


def words(name: str) -> str:
    """A figure or field in words, without its unit; what is not known here by its name, with spaces."""
    return _entry(name)[0]


def label(name: str) -> str:
    """A figure or field in words, with its unit where it has one: ``clock (MHz)``."""
    text, unit = _entry(name)
    return f"{text} ({unit})" if unit else text


def _entry(name: str) -> tuple[str, str]:
    if is_layer_field(name):
        layer, _, field = name.removeprefix(PREFIX).rpartition(".")
        text, unit = _LAYER_FIELDS.get(field, (field, ""))
        return f"{layer}: {text}", unit
    return _FIGURES.get(name) or _FIELDS.get(name) or (name.replace("_", " "), "")
