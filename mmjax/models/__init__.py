"""Models: Linen modules with plain fields, built by name in `presets`."""
