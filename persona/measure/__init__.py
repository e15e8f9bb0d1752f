"""What differs between two plans: sizes, elections, layers."""
