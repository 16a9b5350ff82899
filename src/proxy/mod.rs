//! Connections and requests from the socket to the answer.
