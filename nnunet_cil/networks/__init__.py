"""What a step does to a network: wider heads, a look at the decoder, the frozen teacher, the prototypes."""
