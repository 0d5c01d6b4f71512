//! Builds the parts of a node and holds them together.
