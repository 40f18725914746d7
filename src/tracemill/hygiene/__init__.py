"""What a dataset must be free of before it goes out: repetition, benchmarks, secrets."""
