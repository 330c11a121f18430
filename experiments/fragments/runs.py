"""(name, config) of each run; each with config.seed 0, 1 and 2."""

RUNS = (
    ("regions", "configs/fragments.py:flickr8k"),
    ("whole", "configs/fragments.py:flickr8k_whole"),
    ("max", "configs/fragments.py:flickr8k_max"),
    ("attention", "configs/fragments.py:flickr8k_attention"),
    ("kilogram", "configs/fragments.py:kilogram"),
    ("kilogram_supervised", "configs/fragments.py:kilogram_supervised"),
)
