"""Linear classifiers on frozen features: solver, choice of the L2 weight, few shots."""
