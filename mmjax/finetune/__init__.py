"""Fine-tuning: a run's config from another run and a recipe, and what was forgotten.

Training itself is the one loop's: `recipe.plan` makes configs, `mmjax.train.loop` runs
them, and `forgotten` measures the weights before, after and between.
"""
