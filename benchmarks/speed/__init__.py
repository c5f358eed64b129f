"""How fast training and sampling are, as ratios of contenders that take turns in one run; how right the doctor is."""
