"""Board: what runs on a board, shipped as one zip archive: Python 3.6, its library and numpy."""
