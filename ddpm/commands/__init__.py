"""The commands of `python -m ddpm`, one module each."""
