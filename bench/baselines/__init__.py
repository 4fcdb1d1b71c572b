"""Plain implementations to compare with: what one would write first, correct and without any trick."""
