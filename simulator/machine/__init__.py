"""The whole accelerator in cycles: models of its units and of their memory, equal to the RTL."""
