//! Tokens: JWT to identity, and back.
