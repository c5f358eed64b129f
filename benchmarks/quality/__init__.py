"""How good the images are after so many minutes of training: our parameters, and whole recipes of others."""
