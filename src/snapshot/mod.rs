//! The door: what the control wing describes and the data wing serves, immutable and complete.
