"""What holds for arbitrary input: an answer or a refusal in our own words, never anything else."""
