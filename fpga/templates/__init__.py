"""Templates of what `nmsat fpga generate` writes; values come from the board, the accelerator and the register map."""
