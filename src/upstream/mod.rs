//! Backends: endpoints, names, connections and the choice between them.
