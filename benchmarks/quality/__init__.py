"""What the vectors are worth: experiments on tagging, questions, word senses and language modelling."""
