"""The errors a user can cause, each with the exit code it ends the program with.

Anything that is not one of these is a fault of the suite itself and keeps its traceback.
"""


class MaeBenchError(Exception):
    """A fault that one line explains: what is wrong, where, and the fix."""

    exit_code = 1


class ConfigError(MaeBenchError):
    """A wrong command line or setting."""

    exit_code = 2


class InputError(MaeBenchError):
    """A checkpoint or data set that cannot be used as it is."""

    exit_code = 3


class EnvironmentFault(MaeBenchError):
    """Something the machine lacks: a package, a device, space, a permission."""

    exit_code = 4


class Diverged(MaeBenchError):
    """A number or a loss that is no longer finite: a result of its own, shown as `div.` and never retried silently."""


class Stopped(MaeBenchError):
    """Stopped by a signal after saving; the same command goes on from there."""

    exit_code = 75
