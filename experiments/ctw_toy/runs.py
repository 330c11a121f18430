"""No run is trained: `benchmarks/ctw_toy.py` draws and aligns."""

RUNS = ()
