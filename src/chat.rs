//! What commands do: the one place that combines store, backplane and hub.
