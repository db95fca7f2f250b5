"""The floor of the suite: errors, configs, the run context and the one training engine."""
