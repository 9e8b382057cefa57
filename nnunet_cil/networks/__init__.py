"""What a step does to a network: wider heads, activations read as it runs, the frozen teacher, the prototypes."""
