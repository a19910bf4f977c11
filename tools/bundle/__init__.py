"""Bundle: one archive that installs itself on a board, tests itself and rolls back."""
