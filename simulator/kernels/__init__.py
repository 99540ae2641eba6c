"""CPU kernels run in values (NumPy, numba, wasm, AArch64) and in time."""
