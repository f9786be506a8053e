"""What is peculiar to Seldon Core v2: its statuses, its Servers, its split, and the proof that it does what it says."""
