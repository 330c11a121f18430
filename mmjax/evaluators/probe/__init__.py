"""Linear classifiers on frozen features: solver, choice of strength, few shots."""
