"""Text in, vectors out: sentences embedded in batches, words remembered, layers stored, files of vectors written."""
