"""The same vectors in other libraries' shapes: one file a library, each imported only when it is asked for."""
