"""The tests: a folder for each room of `ddpm/`, and others for what goes through several."""
