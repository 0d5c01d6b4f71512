//! Wire formats: frames to commands, events and replies to frames.
