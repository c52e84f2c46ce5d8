"""Modality encoders, PMAT, the HDNAG generator and neighbour baselines: maths in pure functions."""
