//! sdks/rust
