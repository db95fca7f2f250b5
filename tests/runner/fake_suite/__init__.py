"""Tasks for tests of the runner: they train nothing."""
