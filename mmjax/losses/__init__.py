"""Losses: pure array to scalar functions, in float32."""
