"""The two ways in which a command may end badly, each told in one sentence."""


class InputError(Exception):
    """What the user gave (a parameter, a file, a missing download) cannot be used; exit code 2."""


class RunError(Exception):
    """The work itself failed half-way (a diverged training, say); exit code 1."""
