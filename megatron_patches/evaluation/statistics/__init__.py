"""What scores of items allow one to say: intervals, paired comparisons, the smallest difference that shows."""
