"""The mathematics: noise schedules, the forward process and its targets, the variational bound, samplers.

It knows nothing of networks, files and parameters, and imports no other room.
"""

__all__ = ["noise", "process", "samplers", "schedules", "vlb"]
