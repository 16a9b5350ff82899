//! What will run: the graph turned into the next snapshot.
