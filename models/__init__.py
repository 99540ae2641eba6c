"""What is computed: patterns, workloads, accelerators, golden arithmetic."""
