"""The support matrix of docs/support.md: what works, and the test that shows it."""

from __future__ import annotations

NOT_YET = "no"
FEATURES: tuple[tuple[str, str, str], ...] = (
    # feature, state, test that shows it
    (
        "N:M patterns, N <= M, M in 2, 4, 8, 16, 32",
        "yes",
        "test_models.py::test_every_pattern_of_the_contract_is_legal",
    ),
    ("dense, SR-STE, SDGP, SDWP, BDWP training steps", "yes", "test_lowering.py::test_sparse_stages"),
    (
        "convolution gradients, strided ones by phases",
        "yes",
        "test_lowering.py::test_the_three_products_of_a_convolution",
    ),
    ("fourteen networks, training and inference", "yes", "test_simulate.py::test_the_whole_zoo_runs"),
    ("OS and WS, chosen per layer and stage", "yes", "test_simulate.py::test_the_scheduler_picks_the_best_candidate"),
    ("program: one binary encoding", "yes", "test_program.py::test_decode_inverts_encode"),
    ("closed form equals value-exact engine", "yes", "test_engine.py::test_closed_form_equals_engine"),
    (
        "engine equals register-by-register model",
        "yes",
        "test_engine_reference.py::test_engine_equals_the_literal_model",
    ),
    (
        "workload files with weights and masks, everything recomputed",
        "yes",
        "test_workload_file.py::test_a_lie_is_one_clear_error",
    ),
    (
        "side products (low-rank, block-diagonal): cycles, values, files",
        "yes",
        "test_side_products.py::test_values_are_those_of_the_formula",
    ),
    (
        "ONNX, safetensors, NPZ in; patterns found; masks simulated",
        "yes",
        "test_importers.py::test_layers_shapes_and_patterns_of_real_exports",
    ),
    (
        "torch.export archives, read without torch or pickle",
        "yes",
        "test_importers.py::test_an_archive_holds_what_onnx_holds",
    ),
    (
        "pruning recipes and reference training on digits",
        "yes",
        "test_training_runs.py::test_recipes_keep_their_margins",
    ),
    (
        "a language model ranks the recipes",
        "yes",
        "test_accuracy.py::test_the_language_model_ranks_recipes",
    ),
    ("SCALE-Sim files and cycles", "yes", "test_scalesim.py::test_printed_cycles"),
    (
        "programs executed in values: MLP and CNN steps equal the trainer",
        "yes",
        "test_executor.py::test_cnn_steps_equal_the_trainer",
    ),
    (
        "CPU cycle model: ARM loops inside llvm-mca and OSACA",
        "yes",
        "test_kernel_pipeline.py::test_arm_loops_lie_inside_the_references_interval",
    ),
    (
        "CPU cycle model: phone networks within 10 % unseen",
        "yes",
        "test_kernel_predict.py::test_published_phone_latencies",
    ),
    (
        "CPU cycle model: wasm on Zen 3 within 8 % in the median, 15 % at the 90th percentile",
        "yes",
        "test_kernel_timing.py::test_the_recorded_tables_sum_up_to_what_they_say_and_meet_the_bars",
    ),
    (
        "a million designs a second, each equal to simulate",
        "yes",
        "test_explore.py::test_every_integer_equals_simulate",
    ),
    ("sweeps: Pareto front, resumed after a kill, clusters", "yes", "test_sweep.py::test_a_killed_sweep_goes_on"),
    (
        "guided search near the true front, resumed after a kill; Parquet",
        "yes",
        "test_search.py::test_a_killed_search_goes_on",
    ),
    (
        "sweeps over fields of layers and several fields together",
        "yes",
        "test_sweep_fields.py::test_every_point_equals_simulate",
    ),
    ("energy as a range, every number with a source", "yes", "test_energy.py::test_events_are_counted_tile_by_tile"),
    ("area estimate within its stated error of yosys", "yes", "test_area.py::test_held_out_errors_are_as_stated"),
    (
        "HTML reports: render and sort in a browser",
        "yes",
        "test_report.py::test_the_page_renders_and_sorts_in_a_browser",
    ),
    ("patterns by layer: exact, cycles as simulated", "yes", "test_allocate.py::test_cycles_are_the_simulators"),
    ("gallery regenerated and compared", "yes", "test_gallery.py::test_data_and_page_are_current"),
    ("CPU kernels: wasm equals the reference", "yes", "test_kernel_wasm.py::test_every_shape"),
    ("CPU kernels: AArch64 equals the reference", "yes", "test_kernel_aarch64.py::test_assembly_equals_the_reference"),
    ("mobile networks in one wasm module", "yes", "test_kernel_network.py::test_whole_networks_equal_the_reference"),
    (
        "array in hardware, OS and WS: golden's bits, the engine's cycles",
        "yes",
        "test_rtl_stce.py::test_values_and_cycles",
    ),
    (
        "SORE, transposer, WUVE, epilogue in hardware: golden's bits, closed-form cycles",
        "yes",
        "test_rtl_vector.py::test_sore_writes_golden_s_planes",
    ),
    (
        "Verilog of every block accepted by Verilator's lint, Icarus and yosys; 32x32 in 0.3 MB",
        "yes",
        "test_rtl_verilog.py::test_every_block_is_accepted",
    ),
    (
        "faults planted in the blocks are seen by nmsat verify",
        "yes",
        "test_rtl_mutations.py::test_every_planted_fault_is_seen",
    ),
    ("a user's own cocotb testbench around a block", "yes", "test_examples.py::test_the_testbench_fails_on_a_fault"),
    (
        "batch normalisation in values: steps equal the trainer, whatever the order of sums",
        "yes",
        "test_executor.py::test_steps_with_batch_normalisation_equal_the_trainer",
    ),
    (
        "window accumulator: one DRAM whatever the mapping",
        "yes",
        "test_executor.py::test_window_steps_equal_the_trainer_whatever_the_mapping",
    ),
    (
        "window accumulator in hardware: golden's bits, the engine's cycles",
        "yes",
        "test_rtl_window.py::test_random_cases",
    ),
    (
        "window accumulator in the whole accelerator: a training step in RTL, the executor's bits, the model's cycles",
        "yes",
        "test_cosim.py::test_a_training_step_with_the_window_equals_executor_and_model",
    ),
    (
        "proofs: handshakes, double banks, SORE's choice",
        "yes",
        "test_rtl_proofs.py::test_banks_never_deadlock_nor_lose_a_tile",
    ),
    (
        "update, prune and vector units: the executor's bytes, their models' cycles",
        "yes",
        "test_rtl_update.py::test_a_descriptor_in_values_and_in_cycles",
    ),
    (
        "VCU1525 and U200: scripts of both shells, checked without Vivado, planted faults caught",
        "yes",
        "test_fpga_generate.py::test_block_design_faults_are_seen",
    ),
    ("kernel.xml exercised register by register", "yes", "test_fpga_kernel.py::test_every_register_of_kernel_xml"),
    (
        "area of the whole top, the text that is generated, by block and region (estimate)",
        "yes",
        "test_fpga_estimate.py::test_blocks_and_regions_add_up",
    ),
    (
        "every way between regions registered, and seen where it is not",
        "yes",
        "test_fpga_mapping.py::test_every_way_between_regions_has_registers",
    ),
    ("Vivado reports read back; pages claim only what one says", "yes", "test_fpga_reports.py::test_claims_are_seen"),
    (
        "host drivers for XDMA and XRT, on stand-ins",
        "yes",
        "test_host_card.py::test_one_driver_runs_programs_on_every_card",
    ),
    ("anything on a card, or through Vivado", NOT_YET, ""),
    (
        "DMA on AXI4: every byte, every error to its run; its model's cycles are the RTL's",
        "yes",
        "test_machine_memory.py::test_equals_the_rtl_in_every_cycle",
    ),
    (
        "registers, run control, host driver: one map, one driver for simulation and card",
        "yes",
        "test_host_driver.py::test_the_driver_runs_a_program_with_a_host_step",
    ),
    (
        "whole accelerator in RTL: training steps of digits-mlp, bits and cycles",
        "yes",
        "test_cosim.py::test_a_training_step_equals_executor_and_model",
    ),
    (
        "batch normalisation in the whole accelerator: the host's steps between products",
        "yes",
        "test_cosim.py::test_batch_normalisation_is_the_host_s_between_products",
    ),
    (
        "vector passes (pools, additions) in the whole accelerator",
        "yes",
        "test_cosim.py::test_vector_passes_equal_executor_and_model",
    ),
    (
        "descriptors fetched ahead: cycles of the model, a fault is its descriptor's",
        "yes",
        "test_rtl_controller.py::test_a_fetch_fault_is_its_descriptors",
    ),
    (
        "faults of the whole accelerator: a code in bounded time, the next program right",
        "yes",
        "test_top_faults.py::test_every_fault_ends_with_a_code_and_the_next_program_is_right",
    ),
    (
        "what the hardware refuses is one line before nmsat cosim runs",
        "yes",
        "test_cosim.py::test_what_the_hardware_refuses_is_known_before",
    ),
    (
        "units that overlap: every order that hardware may choose gives the program's values",
        "yes",
        "test_overlap.py::test_every_schedule_gives_the_values_of_the_order",
    ),
)


def support_matrix_markdown() -> str:
    """The matrix as a Markdown table."""
    lines = ["| feature | works | shown by (`tests/`) |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| {name} | {state} | {f'`{test}`' if test else ''} |" for name, state, test in FEATURES]
    )
