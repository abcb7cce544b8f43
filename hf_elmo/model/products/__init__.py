"""Matrix products on a CPU, and which of them each kind of processor takes."""
