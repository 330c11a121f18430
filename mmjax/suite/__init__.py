"""Evaluation suites: data sets times protocols, run once each, reported together."""
