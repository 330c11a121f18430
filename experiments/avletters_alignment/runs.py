"""(name, config) of each run."""

RUNS = (
    ("clock", "configs/alignment.py:avletters"),
    ("soft_dtw", "configs/alignment.py:avletters_soft_dtw"),
    ("tcc", "configs/alignment.py:avletters_tcc"),
)
