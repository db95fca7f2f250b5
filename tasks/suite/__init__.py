"""The benchmarks: one file a task; a new file here is a new name for `run -t`."""
