"""Checkpoint -> Model -> Graph; torch lives here."""
