"""What the numbers mean: metrics, intervals over patients, the front, and the choice made from it."""
