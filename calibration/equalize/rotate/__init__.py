"""Rotate: encoders in the form that integers hold, an orthogonal basis and RMS norms."""
