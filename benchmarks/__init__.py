"""How fast hf_elmo is, beside its peers and the limits of the machine; `quality/`: what the vectors are worth."""
