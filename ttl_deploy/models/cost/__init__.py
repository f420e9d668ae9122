"""What a cut costs and sees."""
