"""The whole pipeline on drawn shapes, from training to a report."""
