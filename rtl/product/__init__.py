"""The product unit: PRODUCT descriptors executed on the array, operands from DRAM and results back to it.

=============  ============================================================
``sizes``      what a unit is generated for
``plan``       a descriptor checked, and the numbers that follow from it
``loader``     operand runs in the order of consumption: requests and places
``scatter``    words that arrive into the lanes' memories
``lanes``      memories of the array's edges, read again and again
``tiles``      commands of the array
``results``    output buffer, partial sums
``store``      addresses of results, epilogue, ReLU masks, writes
``unit``       all of it
=============  ============================================================
"""
