"""What colour the boxes of a class have in drawings, RGB."""

CLASS_COLORS = ((0, 170, 60), (225, 30, 30), (20, 90, 220), (230, 150, 0), (150, 40, 190))
"""Green for the first class, mask, and red for no-mask; more classes take the others in turn."""
