"""How the threads of OpenMP wait for each other, which is set before torch is imported."""

import os
import sys

# Rounds of a loop. In the 300,000 of the default, two programs on the same cores hold each other up; in 1000, threads
# sleep so soon that a training alone pays for waking them, a third of its speed on one processor (docs/speed.md).
SPINS = 5000


def spin_briefly() -> None:
    """Let waiting threads sleep soon, unless the user has set how they wait.

    GNU OpenMP reads the environment when it is loaded, so nothing is done once torch has been imported. The processes
    that are started from here inherit the value.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
