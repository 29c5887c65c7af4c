"""Takes the processor time of another process of the same user."""

import resource
import parameters


def test_attack():
    resource.prlimit(parameters.VICTIM, resource.RLIMIT_CPU, (0, 0))
