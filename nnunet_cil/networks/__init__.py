"""Changes of a network in a step: wider heads, activations read as it runs, the frozen teacher, the prototypes."""
