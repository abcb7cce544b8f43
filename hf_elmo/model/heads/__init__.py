"""What stands on top of the biLM: taggers, classifiers, answers to questions, and their parts."""
